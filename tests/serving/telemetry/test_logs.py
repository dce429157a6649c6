"""What a real server logs of real calls, and how a request id passes through clients, servers and logs."""

import json
import re
import shutil
import signal
import time
from datetime import UTC, datetime

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from bgan.clients import AsyncSamplingClient, ModelNotFoundError, SamplingClient, SamplingError
from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.conftest import FOLDER
from tests.kit.cli import bgan
from tests.kit.servers import server

FLOATS = FOLDER / "models" / "mlp-dbn.onnx"
Request = sampling_pb2.SampleBinaryImagesRequest
JSON = ("--log-format", "json", "--log-calls", "all")
MADE = re.compile("[0-9a-f]{32}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("floats")
    shutil.copy(FLOATS, folder)
    return folder


@pytest.fixture(scope="module")
def logging(folder):
    """A server that logs every call as JSON."""
    with server(folder, *JSON) as process:
        yield process


@pytest.fixture(scope="module")
def breakable(tmp_path_factory):
    """A folder of a model that fails inside of onnxruntime for latents beyond a million."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(FLOATS)
    for node in model.graph.node:
        node.input[:] = ["checked" if name == "latents" else name for name in node.input]
    constants = {"million": (TensorProto.FLOAT, 1e6), "zero": (TensorProto.FLOAT, 0.0)}
    nodes = [
        *(helper.make_node("Constant", [], [name], value=helper.make_tensor(name, kind, [1], [value]))
          for name, (kind, value) in constants.items()),
        helper.make_node("ReduceMax", ["latents"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "million"], ["is_large"]),
        helper.make_node("Cast", ["is_large"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["zero", "place"], ["nothing"]),  # of one entry: there is no second
        helper.make_node("Add", ["latents", "nothing"], ["checked"]),
    ]  # fmt: skip
    for place, node in enumerate(nodes):
        model.graph.node.insert(place, node)
    folder = tmp_path_factory.mktemp("breakable")
    onnx.save(model, folder / "mlp-dbn.onnx")
    return folder


def _stub(channel):
    return sampling_pb2_grpc.SamplingServiceStub(channel)


def _infer(process, name="latents", value=0.0, request_id=None):
    tensor = triton.InferInput(name, [5, 128], "FP32")
    tensor.set_data_from_numpy(np.full((5, 128), value, np.float32))
    with triton.InferenceServerClient(process.target) as client:
        client.infer("mlp-dbn", [tensor], headers=request_id and {"x-request-id": request_id})


def _lines(process):
    return [json.loads(line) for line in process.output().splitlines()]


def _call(process, request_id):
    """The line of a call, which may end a moment after its caller knows."""
    end = time.monotonic() + 60
    while True:
        found = [line for line in _lines(process) if line.get("request_id") == request_id]
        if found or time.monotonic() > end:
            (line,) = found
            return line
        time.sleep(0.05)


def _answered_id(call):
    return dict(call.trailing_metadata())["x-request-id"]


def test_every_line_of_json_is_one_event(logging):
    before = datetime.now(UTC)
    with SamplingClient(logging.target) as client:
        (info,) = client.list_models()
        list(client.sample_binary_images(image_count=300, batch_size=100, request_id="three-hundred"))
    line = _call(logging, "three-hundred")
    assert before < datetime.fromisoformat(line.pop("time")) < datetime.now(UTC)
    assert 0 < line.pop("seconds") < 60
    assert re.fullmatch(r"ipv[46]:.*:\d+", line.pop("peer"))
    assert line == {
        "level": "INFO",
        "message": "bgan.v1.SamplingService/SampleBinaryImages OK",
        "logger": "bgan.serving.telemetry.calls",
        "event": "call",
        "request_id": "three-hundred",
        "method": "bgan.v1.SamplingService/SampleBinaryImages",
        "code": "OK",
        "model": "mlp-dbn",
        "revision": info.revision,
        "images": 300,
    }
    for line in _lines(logging):
        assert line["time"].endswith("Z")
        assert {"level", "message", "logger"} <= line.keys()


def test_what_fails_says_why_and_how_far_it_came(logging):
    with grpc.insecure_channel(logging.target) as channel:
        stub = _stub(channel)
        with pytest.raises(grpc.RpcError):
            list(
                stub.SampleBinaryImages(Request(model="none", image_count=1), metadata=[("x-request-id", "none")])
            )
        endless = Request(image_count=10**9)
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            list(stub.SampleBinaryImages(endless, timeout=2, metadata=[("x-request-id", "late")]))
        cancelled = stub.SampleBinaryImages(endless, metadata=[("x-request-id", "gone")])
        next(cancelled)
        cancelled.cancel()
    none, late, gone = (_call(logging, name) for name in ("none", "late", "gone"))
    assert (none["level"], none["code"]) == ("WARNING", "NOT_FOUND")
    assert none["error"] == "there is no model 'none'; there are mlp-dbn"
    assert "model" not in none
    assert (late["level"], late["code"]) == ("WARNING", "DEADLINE_EXCEEDED")
    assert late["images"] > 0
    assert (gone["level"], gone["code"]) == ("INFO", "CANCELLED")


def test_inferences_are_calls_too(logging):
    _infer(logging, request_id="five")
    line = _call(logging, "five")
    assert (line["method"], line["code"]) == ("inference.GRPCInferenceService/ModelInfer", "OK")
    assert (line["model"], line["images"]) == ("mlp-dbn", 5)


@pytest.mark.parametrize("given", ["a", "0af7:team/job_1=x+y@z.-" * 5, "x" * 128])
def test_a_request_id_is_answered(logging, given):
    with grpc.insecure_channel(logging.target) as channel:
        call = _stub(channel).SampleBinaryImages(Request(image_count=1), metadata=[("x-request-id", given)])
        assert len(list(call)) == 1
        assert _answered_id(call) == given
        failing = _stub(channel).SampleBinaryImages(Request(), metadata=[("x-request-id", given)])
        with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
            list(failing)
        assert _answered_id(failing) == given


@pytest.mark.parametrize("given", [None, "", "x" * 129, "two words", 'a"b', "<a>"])
def test_one_that_is_missing_or_unfit_is_made(logging, given):
    with grpc.insecure_channel(logging.target) as channel:
        metadata = [] if given is None else [("x-request-id", given)]
        calls = [_stub(channel).SampleBinaryImages(Request(image_count=1), metadata=metadata) for _ in range(2)]
        assert [len(list(call)) for call in calls] == [1, 1]
        one, other = map(_answered_id, calls)
    assert MADE.fullmatch(one)
    assert MADE.fullmatch(other)
    assert one != other
    assert _call(logging, one)["code"] == "OK"


def test_text_is_for_people_and_says_what_failed(folder):
    with server(folder) as process:
        with SamplingClient(process.target) as client:
            list(client.sample_binary_images(image_count=10, request_id="good"))
            with pytest.raises(ModelNotFoundError):
                client.get_model("none", request_id="bad")
        with pytest.raises(InferenceServerException):
            _infer(process, name="a\n2026-01-01 00:00:00,000 ERROR forged\x1b[2J", request_id="forged")
        process.process.send_signal(signal.SIGTERM)
        process.process.wait(30)
        lines = process.output().splitlines()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "
    assert all(re.match(stamp, line) for line in lines), lines
    called = [line for line in lines if " from ipv" in line]
    who = r"request {} from ipv[46]:\S+:\d+: "
    assert len(called) == 2
    text = who.format("bad") + "there is no model 'none'; there are mlp-dbn"
    assert re.fullmatch(stamp + r"WARNING GetModel NOT_FOUND in \d\.\d{3} s, " + text, called[0])
    assert re.search(who.format("forged") + r"inputs: are a\\n2026.* ERROR forged\\x1b\[2J; ", called[1])


def test_an_error_inside_is_logged_with_its_trace_and_found_by_its_request_id(breakable):
    with server(breakable, "--log-format", "json", "--log-calls", "none") as process:
        _infer(process)
        with pytest.raises(InferenceServerException, match="internal error; the server's log says more"):
            _infer(process, value=1e7, request_id="inside")
        line = _call(process, "inside")
        assert not [line for line in _lines(process) if line.get("code") == "OK"]
    assert (line["level"], line["code"]) == ("ERROR", "INTERNAL")
    assert (line["model"], line["images"]) == ("mlp-dbn", 0)
    assert "Traceback" in line["trace"]
    assert "Gather" in line["trace"]


def test_workers_are_told_apart(folder):
    with server(folder, *JSON, "--workers", 2) as process:
        with SamplingClient(process.target) as client:
            client.list_models(request_id="models")
        assert _call(process, "models")["worker"] in (0, 1)
        assert {line.get("worker") for line in _lines(process)} == {None, 0, 1}


def test_one_request_id_names_all_calls_of_a_stream(logging, folder):
    with server(folder, *JSON) as other:
        with SamplingClient([logging.target, other.target]) as client:
            list(client.sample_binary_images(image_count=3000, seed=1, request_id="split"))
        # A server writes its line after the client has its last image.
        end = time.monotonic() + 20
        lines = []
        while sum(line["images"] for line in lines) < 3000 and time.monotonic() < end:
            time.sleep(0.05)
            lines = [line for line in _lines(logging) + _lines(other) if line.get("request_id") == "split"]
    assert len(lines) > 1
    assert sum(line["images"] for line in lines) == 3000


def test_errors_of_clients_name_the_request(logging):
    with SamplingClient(logging.target) as client:
        with pytest.raises(ModelNotFoundError, match=r"there are mlp-dbn \(request mine\)$") as caught:
            list(client.sample_binary_images(image_count=1, model="none", request_id="mine"))
        assert caught.value.request_id == "mine"
        with pytest.raises(ModelNotFoundError, match=r"there are mlp-dbn$") as caught:
            client.get_model("none")
        assert MADE.fullmatch(caught.value.request_id)
        assert _call(logging, caught.value.request_id)["code"] == "NOT_FOUND"
        for unfit in ("", "two words", "x" * 129, "zwölf"):
            with pytest.raises(SamplingError, match="use up to 128 letters"):
                client.sample_binary_images(image_count=1, request_id=unfit)
            with pytest.raises(SamplingError, match="use up to 128 letters"):
                client.list_models(request_id=unfit)


async def test_so_do_those_of_asyncio(logging):
    async with AsyncSamplingClient(logging.target) as client:
        async for _ in client.sample_binary_images(image_count=1, request_id="first"):
            pass
        await client.get_model(request_id="second")
        assert {_call(logging, name)["code"] for name in ("first", "second")} == {"OK"}
        with pytest.raises(ModelNotFoundError, match=r"\(request third\)$"):
            async for _ in client.sample_binary_images(image_count=1, model="none", request_id="third"):
                pass
        with pytest.raises(SamplingError, match="use up to 128 letters"):
            await client.list_models(request_id="two words")


def test_the_command_sends_one(logging, tmp_path):
    options = ("--server", logging.target, "--output", tmp_path / "a.npy", "--count", 7, "--request-id", "shell")
    assert bgan("sample", *options).returncode == 0
    assert _call(logging, "shell")["images"] == 7


def test_a_form_that_is_none_is_one_line(folder):
    result = bgan("serve", "--models", folder, "--log-format", "xml")
    assert result.returncode == 2
    assert result.stderr.strip() == "bgan: --log-format: log_format is 'xml'; use one of text, json"
