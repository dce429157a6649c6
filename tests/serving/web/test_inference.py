"""The Open Inference Protocol over HTTP, spoken by NVIDIA's tritonclient, which knows nothing of bgan."""

import json
from importlib.metadata import version

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from bgan.serving.models.engine import load_engine
from tests.conftest import FOLDER

MODELS = {"mlp-dbn": "models", "cnn-sbn": "models", "sbn": "classes"}
DATATYPES = {"latents": "FP32", "uniforms": "FP32", "labels": "INT64"}


@pytest.fixture(scope="module")
def engines():
    return {name: load_engine(FOLDER / folder / f"{name}.onnx") for name, folder in MODELS.items()}


@pytest.fixture(scope="module")
def client(web):
    with triton.InferenceServerClient(web.http.removeprefix("http://")) as client:
        yield client


def _noise(engine, count):
    latents, uniforms, labels, *_ = engine.noise.draw(7, 0, count)
    noise = {"latents": latents, "uniforms": uniforms, "labels": labels}
    if uniforms is not None:
        noise["uniforms"] = uniforms.reshape(count, *engine.image_shape)
    return {name: values for name, values in noise.items() if values is not None}


def test_what_the_server_and_a_model_are(client, engines):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mlp-dbn")
    assert client.get_server_metadata() == {
        "name": "bgan",
        "version": version("bgan"),
        "extensions": ["binary_tensor_data"],
    }
    engine = engines["cnn-sbn"]
    assert client.get_model_metadata("cnn-sbn", engine.revision) == {
        "name": "cnn-sbn",
        "versions": [engine.revision],
        "platform": "onnx_onnxv1",
        "inputs": [
            {"name": "latents", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "uniforms", "datatype": "FP32", "shape": [-1, 2, 9, 13]},
        ],
        "outputs": [
            {"name": "images", "datatype": "UINT8", "shape": [-1, 2, 9, 13]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2, 9, 13]},
        ],
    }


@pytest.mark.parametrize("sent_as_bytes", [True, False])
@pytest.mark.parametrize("taken_as_bytes", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_an_inference_is_the_graphs_own(client, engines, model, sent_as_bytes, taken_as_bytes):
    noise = _noise(engines[model], 3)
    inputs = [triton.InferInput(name, values.shape, DATATYPES[name]) for name, values in noise.items()]
    for each in inputs:
        each.set_data_from_numpy(noise[each.name()], binary_data=sent_as_bytes)
    outputs = [
        triton.InferRequestedOutput(name, binary_data=taken_as_bytes) for name in ("probabilities", "images")
    ]
    images, probabilities = engines[model].infer(noise["latents"], noise.get("uniforms"), noise.get("labels"))
    for wanted in (outputs, None):
        result = client.infer(model, inputs, outputs=wanted, request_id="one")
        np.testing.assert_array_equal(result.as_numpy("images"), images)
        np.testing.assert_array_equal(result.as_numpy("probabilities"), probabilities)
        answer = result.get_response()
        assert (answer["id"], answer["model_name"]) == ("one", model)
        assert answer["model_version"] == engines[model].revision


def test_many_rows_go_as_bytes(client, engines):
    noise = _noise(engines["mlp-dbn"], 800)
    latents = triton.InferInput("latents", noise["latents"].shape, "FP32")
    latents.set_data_from_numpy(noise["latents"])
    images, _ = engines["mlp-dbn"].infer(noise["latents"], None)
    np.testing.assert_array_equal(client.infer("mlp-dbn", [latents]).as_numpy("images"), images)
    with pytest.raises(InferenceServerException, match="of 800 rows may take more than 4000000 bytes as"):
        client.infer("mlp-dbn", [latents], outputs=[triton.InferRequestedOutput("images", binary_data=False)])


def test_errors_are_told_as_tritonclient_reads_them(client):
    latents = triton.InferInput("latents", [1, 4], "FP32")
    latents.set_data_from_numpy(np.zeros((1, 4), np.float32))
    with pytest.raises(InferenceServerException, match=r"\[400\] latents: has the shape \[1, 4\]"):
        client.infer("mlp-dbn", [latents])
    with pytest.raises(InferenceServerException, match=r"\[404\] there is no model 'nope'"):
        client.infer("nope", [latents])
    with pytest.raises(InferenceServerException, match=r"\[404\] there is no model 'nope'"):
        client.get_model_metadata("nope")
    with pytest.raises(InferenceServerException, match=r"\[415\] content-encoding: is 'gzip'; send the body"):
        client.infer("mlp-dbn", [latents], request_compression_algorithm="gzip")
    assert not client.is_model_ready("nope")


def _tensor(**fields):
    return {"name": "latents", "datatype": "FP32", "shape": [1, 128], "data": [0] * 128, **fields}


BAD = [
    (b"", "request", "Invalid JSON: EOF"),
    (b"{", "request", "Invalid JSON: EOF"),
    (b"\xff{}", "request", "Invalid JSON: expected value at line 1 column 1"),
    (b"[" * 100_000, "request", "Invalid JSON: recursion limit exceeded"),
    (b"1" * 100_000, "request", "Invalid JSON: number out of range"),
    ([], "request", "should be an object"),
    ({}, "inputs", "are none; the model takes latents, each once"),
    ({"inputs": {}}, "inputs", "should be a valid array"),
    ({"inputs": [_tensor()] * 17}, "inputs", "should have at most 16 items"),
    ({"inputs": [1]}, "inputs[0]", "should be an object"),
    ({"inputs": [{"datatype": "FP32", "shape": []}]}, "inputs[0].name", "Field required"),
    ({"inputs": [_tensor(name=3)]}, "inputs[0].name", "should be a valid string"),
    ({"inputs": [_tensor(name="\ud800")]}, "request", "Invalid JSON: unexpected end of hex escape"),
    ({"inputs": [_tensor(shape=[True])]}, "inputs[0].shape[0]", "should be a valid integer"),
    ({"inputs": [_tensor(shape=[2**63])]}, "inputs[0].shape[0]", "should be less than 9223372036854775808"),
    ({"inputs": [_tensor(shape=[1] * 9)]}, "inputs[0].shape", "should have at most 8 items"),
    ({"inputs": [_tensor(shape=[2, 128])]}, "latents", "has 512 bytes; FP32 of the shape [2, 128] takes 1024"),
    ({"inputs": [_tensor(datatype="BYTES")]}, "latents", "has the datatype 'BYTES'; send FP32"),
    ({"inputs": [_tensor(data=["a"] * 128)]}, "inputs[0].data", "holds something else than numbers"),
    ({"inputs": [_tensor(data=[None] * 128)]}, "inputs[0].data", "holds something else than numbers"),
    ({"inputs": [_tensor(data=[10**400] * 128)]}, "inputs[0].data", "holds something else than numbers"),
    ({"inputs": [_tensor(data=[[0], [0, 1]])]}, "inputs[0].data", "is nested unevenly"),
    ({"inputs": [_tensor(data=[1e39] * 128)]}, "latents", "has inf as value 0; latents are finite"),
    ({"inputs": [_tensor(data=[float("nan")] * 128)]}, "latents", "has nan as value 0; latents are finite"),
    ({"inputs": [_tensor()] * 2}, "inputs", "are latents, latents; the model takes latents, each once"),
    ({"inputs": [_tensor(parameters=[])]}, "inputs[0].parameters", "should be an object"),
    ({"inputs": [_tensor(parameters={"shared_memory_region": "x"})]}, "latents", "has the parameter shared"),
    ({"inputs": [_tensor(parameters={"binary_data_size": 41})]}, "inputs[0]", "has 41 bytes after the"),
    ({"inputs": [_tensor(parameters={"binary_data_size": -1})]}, "inputs[0]", "has -1 bytes after the JSON"),
    (
        {"inputs": [_tensor(parameters={"binary_data_size": 1.5})]},
        "inputs[0].parameters.binary_data_size",
        "should be a valid integer",
    ),
    ({"inputs": [_tensor()], "outputs": [{"name": "x"}]}, "outputs", "are x; ask for images and probabilities"),
    (
        {"inputs": [_tensor()], "outputs": [{"name": "images", "parameters": {"binary_data": 1}}]},
        "outputs[0].parameters.binary_data",
        "should be a valid boolean",
    ),
    (
        {"inputs": [_tensor()], "parameters": {"binary_data_output": "yes"}},
        "parameters.binary_data_output",
        "should be a valid boolean",
    ),
    ({"inputs": [_tensor()], "id": 7}, "id", "should be a valid string"),
]


@pytest.mark.parametrize(("body", "field", "says"), BAD, ids=range(len(BAD)))
def test_a_bad_body_is_refused_by_its_field(http, body, field, says):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = http.post("/v2/models/mlp-dbn/infer", content=content)
    assert response.status_code == 400, response.text
    problem = response.json()
    assert [each["field"] for each in problem["errors"]] == [field]
    assert says in problem["errors"][0]["detail"]
    assert problem["error"] == problem["detail"]
    assert response.headers["content-type"] == "application/json"  # else KServe's client shows no text


def test_a_tensor_is_called_by_its_own_name(http):
    labels = {"name": "labels", "datatype": "INT64", "shape": [1], "data": [99]}
    size = http.get("/v2/models/dbn").json()["inputs"][0]["shape"][1]
    latents = _tensor(shape=[1, size], data=[0] * size)
    problem = http.post("/v2/models/dbn/infer", json={"inputs": [latents, labels]}).json()
    assert problem["detail"].startswith("labels: has 99 as value 0; the classes of the model are 0 to ")


@pytest.mark.parametrize(
    ("length", "says"), [("x", "is 'x', where the body has 2 bytes"), ("3", "is '3', where"), ("-1", "is '-1'")]
)
def test_a_wrong_length_of_the_header_is_refused(http, length, says):
    headers = {"Inference-Header-Content-Length": length}
    problem = http.post("/v2/models/mlp-dbn/infer", content=b"{}", headers=headers).json()
    assert problem["errors"][0]["field"] == "inference-header-content-length"
    assert says in problem["detail"]
    left = http.post(
        "/v2/models/mlp-dbn/infer", content=b"{}abc", headers={"Inference-Header-Content-Length": "2"}
    ).json()
    assert left["detail"] == "request: has 3 bytes after the JSON that no input names"


def test_a_body_that_is_too_long_is_refused_before_it_is_read(http):
    response = http.post("/v2/models/mlp-dbn/infer", content=b" " * (4 * 2**20 + 1))
    assert response.status_code == 413
    assert response.json()["errors"] == [{"field": "body", "detail": "is too long; send at most 4194304 bytes"}]
    parts = (b" " * 2**20 for _ in range(5))
    assert http.post("/v2/models/mlp-dbn/infer", content=parts).status_code == 413
