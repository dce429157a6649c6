"""The Open Inference Protocol of a real server, spoken to by NVIDIA's tritonclient, which knows nothing of us."""

import asyncio
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import grpc
import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from bgan.clients import SamplingClient
from bgan.inference import open_inference_grpc_pb2
from bgan.serving.models.engine import load_engine
from tests.kit.servers import ServerProcess, free_port, server
from tests.kit.waiting import eventually, unreadable
from tests.reliability.metrics import scrape

SERVICE = "inference.GRPCInferenceService"
INVALID = "StatusCode.INVALID_ARGUMENT"
Tensor = service_pb2.ModelInferRequest.InferInputTensor
Output = service_pb2.ModelInferRequest.InferRequestedOutputTensor


@pytest.fixture(scope="module")
def client(running):
    with triton.InferenceServerClient(running.target) as client:
        yield client


@pytest.fixture(scope="module")
def stub(running):
    with grpc.insecure_channel(running.target) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture(scope="module")
def engines(models):
    return {path.stem: load_engine(path) for path in models.glob("*.onnx")}


def _noise(engine, count, seed=7, first_index=0):
    """The inputs of images of the stream, by name."""
    latents, uniforms, *_ = engine.noise.draw(seed, first_index, count)
    if uniforms is None:
        return {"latents": latents}
    return {"latents": latents, "uniforms": uniforms.reshape(count, *engine.image_shape)}


def _inputs(arrays):
    inputs = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, array.shape, "FP32")
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def _tensor(name, shape, values=None, datatype="FP32"):
    tensor = Tensor(name=name, datatype=datatype, shape=shape)
    if values is not None:
        tensor.contents.fp32_contents.extend(values)
    return tensor


def _expected(models, name, arrays):
    session = onnxruntime.InferenceSession(models / f"{name}.onnx", providers=["CPUExecutionProvider"])
    images, probabilities = session.run(["images", "probabilities"], arrays)
    return images, np.minimum(probabilities, np.float32(1))  # its Sigmoid gives 1.0000001 for some logits


def _assert_equal(result, expected):
    for name, array in zip(("images", "probabilities"), expected, strict=True):
        found = result.as_numpy(name)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()


def test_the_server_is_live_ready_and_named(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert (metadata.name, metadata.version, list(metadata.extensions)) == ("bgan", version("bgan"), [])


def test_a_model_is_ready_in_its_revision_only(client, engines):
    for name, engine in engines.items():
        assert client.is_model_ready(name)
        assert client.is_model_ready(name, engine.revision)
    for name, revision in (("nope", ""), ("mlp-dbn", "1")):
        with pytest.raises(InferenceServerException) as caught:
            client.is_model_ready(name, revision)
        assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_metadata_says_what_a_model_takes_and_gives(client, engines):
    def tensors(group):
        return [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in group]

    for name, engine in engines.items():
        metadata = client.get_model_metadata(name)
        assert (metadata.name, list(metadata.versions), metadata.platform) == (
            name,
            [engine.revision],
            "onnx_onnxv1",
        )
        image = [-1, *engine.image_shape]
        latents = ("latents", "FP32", [-1, engine.manifest.latent_size])
        uniforms = [] if name == "mlp-dbn" else [("uniforms", "FP32", image)]
        assert tensors(metadata.inputs) == [latents, *uniforms]
        assert tensors(metadata.outputs) == [("images", "UINT8", image), ("probabilities", "FP32", image)]


@pytest.mark.parametrize("name", ["mlp-dbn", "mlp-sbn", "cnn-sbn"])
@pytest.mark.parametrize("count", [1, 5, 300])
def test_the_answer_is_that_of_onnxruntime_bit_for_bit(client, models, engines, name, count):
    arrays = _noise(engines[name], count)
    result = client.infer(name, _inputs(arrays), request_id="this one")
    _assert_equal(result, _expected(models, name, arrays))
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == (name, engines[name].revision, "this one")


def test_inputs_come_in_any_order_and_latents_from_outside_the_table(client, models, engines):
    arrays = _noise(engines["cnn-sbn"], 4)
    arrays["latents"] = arrays["latents"] * np.float32(1.37)
    reversed_inputs = list(reversed(_inputs(arrays)))
    _assert_equal(client.infer("cnn-sbn", reversed_inputs), _expected(models, "cnn-sbn", arrays))


@pytest.mark.parametrize("name", ["mlp-dbn", "mlp-sbn", "cnn-sbn"])
def test_the_streams_noise_gives_the_streams_images(client, running, engines, name):
    result = client.infer(name, _inputs(_noise(engines[name], 100, seed=11, first_index=2**40)))
    with SamplingClient(running.target) as sampling:
        (batch,) = sampling.sample_binary_images(
            image_count=100, seed=11, first_index=2**40, model=name, batch_size=100
        )
    np.testing.assert_array_equal(result.as_numpy("images"), batch.images)
    assert result.get_response().model_version == batch.revision


@pytest.mark.parametrize("name", ["mlp-dbn", "cnn-sbn"])
def test_typed_contents_give_the_same_as_raw_ones(client, stub, engines, name):
    arrays = _noise(engines[name], 3)
    typed = stub.ModelInfer(
        service_pb2.ModelInferRequest(
            model_name=name,
            inputs=[_tensor(key, array.shape, array.ravel().tolist()) for key, array in arrays.items()],
        )
    )
    assert typed == client.infer(name, _inputs(arrays)).get_response()


@pytest.mark.parametrize("wanted", [["probabilities"], ["images"], ["probabilities", "images"]])
def test_only_the_outputs_asked_for_are_sent_in_their_order(client, models, engines, wanted):
    arrays = _noise(engines["mlp-dbn"], 6)
    outputs = [triton.InferRequestedOutput(name) for name in wanted]
    result = client.infer("mlp-dbn", _inputs(arrays), outputs=outputs)
    response = result.get_response()
    assert [output.name for output in response.outputs] == wanted
    expected = dict(
        zip(("images", "probabilities"), _expected(models, "mlp-dbn", arrays), strict=True),
    )
    assert list(response.raw_output_contents) == [expected[name].tobytes() for name in wanted]


def test_a_revision_and_compression_may_be_named(client, models, engines):
    arrays = _noise(engines["mlp-dbn"], 6)
    result = client.infer(
        "mlp-dbn",
        _inputs(arrays),
        model_version=engines["mlp-dbn"].revision,
        compression_algorithm="gzip",
        priority=1,
        client_timeout=30,
    )
    _assert_equal(result, _expected(models, "mlp-dbn", arrays))


def test_calls_in_flight_do_not_disturb_each_other(client, models, engines):
    batches = [_noise(engines["mlp-sbn"], count, seed=count) for count in range(1, 33)]
    answers, done = {}, threading.Semaphore(0)

    def keep(index, result, error):
        answers[index] = error or result
        done.release()

    for index, arrays in enumerate(batches):
        client.async_infer(
            "mlp-sbn", _inputs(arrays), lambda result, error, index=index: keep(index, result, error)
        )
    for _ in batches:
        assert done.acquire(timeout=60)
    for index, arrays in enumerate(batches):
        _assert_equal(answers[index], _expected(models, "mlp-sbn", arrays))


async def test_the_asyncio_client_works_too(running, models, engines):
    async with triton_aio.InferenceServerClient(running.target) as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata("cnn-sbn")).name == "cnn-sbn"
        batches = [_noise(engines["cnn-sbn"], count) for count in (1, 20, 40)]
        results = await asyncio.gather(*[client.infer("cnn-sbn", _inputs(arrays)) for arrays in batches])
    for arrays, result in zip(batches, results, strict=True):
        _assert_equal(result, _expected(models, "cnn-sbn", arrays))


LATENTS = [0.5] * 256  # two rows of mlp-dbn's and mlp-sbn's
UNIFORMS = [0.25] * 2 * 784


def _raw(values):
    return np.array(values, "<f4").tobytes()


BAD_REQUESTS = {
    "missing": ({"inputs": []}, "inputs: are none; the model takes latents and uniforms, each once"),
    "one missing": (
        {"inputs": [_tensor("latents", [2, 128], LATENTS)]},
        "inputs: are latents; the model takes latents and uniforms",
    ),
    "twice": (
        {"inputs": [_tensor("latents", [2, 128], LATENTS)] * 2},
        "inputs: are latents, latents; the model takes latents and uniforms",
    ),
    "extra": (
        {"model_name": "mlp-dbn", "inputs": [_tensor(name, [2, 128], LATENTS) for name in ("latents", "labels")]},
        "inputs: are latents, labels; the model takes latents, each once",
    ),
    "dtype": ({"latents": _tensor("latents", [2, 128], LATENTS, "FP64")}, "latents: has the datatype 'FP64'"),
    "no shape": (
        {"latents": _tensor("latents", [], LATENTS)},
        "latents: has the shape []; send [batch, 128] with a batch of 1 to 1020",
    ),
    "shape": ({"uniforms": _tensor("uniforms", [2, 784], UNIFORMS)}, "send [batch, 1, 28, 28]"),
    "empty": ({"latents": _tensor("latents", [0, 128])}, "has the shape [0, 128]"),
    "negative": ({"latents": _tensor("latents", [-2, 128], LATENTS)}, "has the shape [-2, 128]"),
    "huge": ({"latents": _tensor("latents", [2**62, 128], LATENTS)}, "with a batch of 1 to 1020"),
    "batches": (
        {"latents": _tensor("latents", [1, 128], LATENTS[:128])},
        "inputs: differ in their batch; latents has 1 rows and uniforms has 2 rows",
    ),
    "values": (
        {"latents": _tensor("latents", [2, 128], LATENTS[1:])},
        "latents: has 255 values; the shape [2, 128] takes 256",
    ),
    "no values": ({"latents": _tensor("latents", [2, 128])}, "latents: has its values in nothing"),
    "wrong field": (
        {"latents": Tensor(name="latents", datatype="FP32", shape=[2, 128], contents={"fp64_contents": LATENTS})},
        "latents: has its values in fp64_contents; send raw_input_contents or fp32_contents",
    ),
    "NaN": (
        {"latents": _tensor("latents", [2, 128], [*LATENTS[1:], float("nan")])},
        "latents: has nan as value 255; latents are finite",
    ),
    "infinite": ({"latents": _tensor("latents", [2, 128], [float("-inf"), *LATENTS[1:]])}, "has -inf as value 0"),
    "uniform 1": (
        {"uniforms": _tensor("uniforms", [2, 1, 28, 28], [*UNIFORMS[1:], 1.0])},
        "uniforms: has 1.0 as value 1567; uniforms are at least 0 and below 1",
    ),
    "uniform below 0": (
        {"uniforms": _tensor("uniforms", [2, 1, 28, 28], [-0.5, *UNIFORMS[1:]])},
        "uniforms: has -0.5 as value 0",
    ),
    "uniform NaN": (
        {"uniforms": _tensor("uniforms", [2, 1, 28, 28], [float("nan"), *UNIFORMS[1:]])},
        "uniforms: has nan as value 0",
    ),
    "both encodings": (
        {"raw_input_contents": [_raw(LATENTS), _raw(UNIFORMS)]},
        "latents: has contents beside raw_input_contents; send one of the two",
    ),
    "raw entries": (
        {"raw_input_contents": [_raw(LATENTS)]},
        "raw_input_contents: has 1 entries for 2 inputs; send one for each",
    ),
    "raw bytes": (
        {
            "latents": _tensor("latents", [2, 128]),
            "uniforms": _tensor("uniforms", [2, 1, 28, 28]),
            "raw_input_contents": [_raw(LATENTS[1:]), _raw(UNIFORMS)],
        },
        "latents: has 1020 bytes; FP32 of the shape [2, 128] takes 1024",
    ),
    "raw NaN": (
        {
            "latents": _tensor("latents", [2, 128]),
            "uniforms": _tensor("uniforms", [2, 1, 28, 28]),
            "raw_input_contents": [b"\xff" * 1024, _raw(UNIFORMS)],
        },
        "latents: has nan as value 0",
    ),
    "unknown output": (
        {"outputs": [Output(name="logits")]},
        "outputs: are logits; ask for images and probabilities, each at most once",
    ),
    "output twice": ({"outputs": [Output(name="images")] * 2}, "outputs: are images, images"),
    "classification": (
        {"outputs": [Output(name="images", parameters={"classification": {"int64_param": 3}})]},
        "images: has the parameter classification",
    ),
    "shared memory": (
        {
            "latents": Tensor(
                name="latents",
                datatype="FP32",
                shape=[2, 128],
                parameters={"shared_memory_region": {"string_param": "region"}},
            )
        },
        "latents: has the parameter shared_memory_region",
    ),
}


@pytest.mark.parametrize(("fields", "text"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_what_is_wrong_with_a_request_is_said(stub, fields, text):
    fields = dict(fields)
    latents = fields.pop("latents", _tensor("latents", [2, 128], LATENTS))
    uniforms = fields.pop("uniforms", _tensor("uniforms", [2, 1, 28, 28], UNIFORMS))
    request = service_pb2.ModelInferRequest(
        **{"model_name": "mlp-sbn", "inputs": [latents, uniforms], **fields},
    )
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert text in caught.value.details()


def test_a_request_with_nothing_wrong_passes(stub):
    response = stub.ModelInfer(
        service_pb2.ModelInferRequest(
            model_name="mlp-sbn",
            inputs=[
                _tensor("latents", [2, 128], LATENTS),
                _tensor("uniforms", [2, 1, 28, 28], UNIFORMS),
            ],
        )
    )
    assert [output.name for output in response.outputs] == ["images", "probabilities"]


@pytest.mark.parametrize(
    ("name", "revision", "text"),
    [
        ("nope", "", "there is no model 'nope'; there are cnn-sbn, mlp-dbn, mlp-sbn"),
        ("mlp-dbn", "2", "model 'mlp-dbn' has no version 2; there is one without a number"),
        (
            "mlp-dbn",
            "0" * 32,
            "model 'mlp-dbn' is not served in revision 00000000000000000000000000000000; there is ",
        ),
    ],
)
def test_an_unknown_model_or_version_is_not_found(client, engines, name, revision, text):
    inputs = _inputs(_noise(engines["mlp-dbn"], 1))
    for call in (
        lambda: client.infer(name, inputs, model_version=revision),
        lambda: client.get_model_metadata(name, revision),
    ):
        with pytest.raises(InferenceServerException) as caught:
            call()
        assert caught.value.status() == "StatusCode.NOT_FOUND"
        assert text in caught.value.message()


def test_an_empty_name_means_the_default_model(client, engines):
    assert client.infer("", _inputs(_noise(engines["mlp-dbn"], 1))).get_response().model_name == "mlp-dbn"


def test_the_largest_batch_fits_and_one_more_is_refused(client, models, engines):
    arrays = _noise(engines["mlp-sbn"], 1021)
    fitting = {name: array[:1020] for name, array in arrays.items()}
    _assert_equal(client.infer("mlp-sbn", _inputs(fitting)), _expected(models, "mlp-sbn", fitting))
    with pytest.raises(InferenceServerException) as caught:
        client.infer("mlp-sbn", _inputs(arrays))
    assert caught.value.status() == INVALID
    assert "with a batch of 1 to 1020" in caught.value.message()


def test_limits_follow_the_settings(models, engines):
    options = {"env": {"BGAN_MAX_MESSAGE_BYTES": "8000000"}}
    with (
        server(models, "--max-batch-size", "1500", **options) as process,
        triton.InferenceServerClient(process.target) as client,
    ):
        arrays = _noise(engines["mlp-sbn"], 1500)
        assert sum(array.nbytes for array in arrays.values()) > 4 * 2**20  # gRPC's own limit
        _assert_equal(client.infer("mlp-sbn", _inputs(arrays)), _expected(models, "mlp-sbn", arrays))
        with pytest.raises(InferenceServerException, match="with a batch of 1 to 1500"):
            client.infer("mlp-dbn", _inputs(_noise(engines["mlp-dbn"], 1501)))


def test_a_request_over_grpcs_limit_is_refused_with_both_sizes(client, engines):
    with pytest.raises(InferenceServerException, match=r"message larger than max \(\d+ vs. 4194304\)") as caught:
        client.infer("mlp-sbn", _inputs(_noise(engines["mlp-sbn"], 1500)))
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


def test_the_server_is_not_ready_until_the_models_are_loaded(models, engines, tmp_path):
    path = shutil.copy(models / "mlp-dbn.onnx", tmp_path)
    port = free_port()
    inputs = _inputs(_noise(engines["mlp-dbn"], 1))
    with ThreadPoolExecutor() as pool, triton.InferenceServerClient(f"localhost:{port}") as client:
        with unreadable(path):
            started = pool.submit(ServerProcess, tmp_path, port=port)
            options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50)]
            with grpc.insecure_channel(f"localhost:{port}", options=options) as channel:
                grpc.channel_ready_future(channel).result(30)
            assert client.is_server_live()
            assert not client.is_server_ready()
            assert not client.is_model_ready("mlp-dbn")
            for call in (lambda: client.infer("mlp-dbn", inputs), lambda: client.get_model_metadata("mlp-dbn")):
                with pytest.raises(InferenceServerException, match="still loading") as caught:
                    call()
                assert caught.value.status() == "StatusCode.UNAVAILABLE"
        process = started.result()
        try:
            assert client.is_server_ready()
            assert client.is_model_ready("mlp-dbn")
        finally:
            process.stop()


def test_too_many_calls_at_once_are_refused(models, engines):
    arrays = _noise(engines["cnn-sbn"], 1000)
    options = ("--max-streams", 1, "--max-queued-calls", 0)
    with server(models, *options) as process, triton.InferenceServerClient(process.target) as client:
        calls = [_Call() for _ in range(30)]
        for call in calls:
            client.async_infer("cnn-sbn", _inputs(arrays), call)
        for call in calls:
            assert call.done.wait(60)
        refused = [call.error for call in calls if call.error]
        assert 0 < len(refused) < 30
        assert {error.status() for error in refused} == {"StatusCode.RESOURCE_EXHAUSTED"}
        assert "1 calls are running and 0 waiting" in refused[0].message()
        _assert_equal(client.infer("cnn-sbn", _inputs(arrays)), _expected(models, "cnn-sbn", arrays))


def test_streams_and_inferences_share_their_places(models, engines):
    inputs = _inputs(_noise(engines["mlp-dbn"], 1))
    options = ("--max-streams", 1, "--max-queued-calls", 0)
    with (
        server(models, *options) as process,
        triton.InferenceServerClient(process.target) as client,
        SamplingClient(process.target) as sampling,
    ):
        stream = sampling.sample_binary_images(image_count=10**8, model="mlp-sbn")
        next(stream)
        with pytest.raises(InferenceServerException, match="1 calls are running and 0 waiting") as caught:
            client.infer("mlp-dbn", inputs)
        assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        stream.close()


def test_a_stopping_server_answers_the_inferences_that_it_has(models, engines):
    inputs = _inputs(_noise(engines["cnn-sbn"], 1000))
    options = ("--threads", 1, "--grace-seconds", 200, "--metrics-port", 0)
    with server(models, *options) as process, triton.InferenceServerClient(process.target) as client:
        calls = [_Call() for _ in range(30)]
        for call in calls:
            client.async_infer("cnn-sbn", inputs, call)
        eventually(lambda: scrape(process)["bgan_streams",] + sum(c.done.is_set() for c in calls) == len(calls))
        process.process.send_signal(signal.SIGTERM)
        for call in calls:
            assert call.done.wait(200)
        assert [str(call.error) for call in calls if call.error] == []
        assert process.process.wait(200) == 0


class _Call:
    """What became of an asynchronous inference."""

    def __init__(self):
        self.done = threading.Event()
        self.error = None

    def __call__(self, result, error):
        self.error = error
        self.done.set()


def test_health_and_reflection_know_the_service(running):
    with grpc.insecure_channel(running.target) as channel:
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        assert health_pb2_grpc.HealthStub(channel).Check(request).status == health_pb2.HealthCheckResponse.SERVING
        database = ProtoReflectionDescriptorDatabase(channel)
        assert SERVICE in database.get_services()
        service = DescriptorPool(database).FindServiceByName(SERVICE)
        assert {"ServerLive", "ModelInfer"} < {method.name for method in service.methods}


def _fields(messages):
    """Number, type and repetition of every field, by its path."""
    for message in messages.values():
        for field in message.fields:
            yield (f"{message.full_name}.{field.name}", (field.number, field.type, field.is_repeated))
        yield from _fields(message.nested_types_by_name)


def test_the_proto_is_that_of_its_clients():
    ours = dict(_fields(open_inference_grpc_pb2.DESCRIPTOR.message_types_by_name))
    theirs = dict(_fields(service_pb2.DESCRIPTOR.message_types_by_name))
    added = "inference.ModelMetadataResponse.properties", "inference.ModelMetadataResponse.PropertiesEntry"
    assert ours.items() - theirs.items() == {item for item in ours.items() if item[0].startswith(added)}
    assert len(ours) > 50


@pytest.mark.parametrize("first", ["tritonclient.grpc", "bgan.serving.server.server"])
def test_the_server_the_clients_and_tritonclient_live_in_one_process(first):
    """Both have stubs of the package `inference`."""
    code = f"import {first}, tritonclient.grpc, bgan.serving.server.server, bgan.clients._client"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
