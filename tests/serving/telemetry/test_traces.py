"""What a real collector's port gets of real calls: OTLP over gRPC, parsed by its own protobuf."""

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from bgan.clients import DeadlineExceededError, SamplingClient
from bgan.serving.config.settings import ServerSettings
from bgan.serving.config.sources import resolve
from bgan.serving.errors import StartError
from bgan.serving.telemetry.start import start_tracing
from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.conftest import ROOT
from tests.kit.cli import bgan_process
from tests.kit.servers import free_port, server

SHIPPED = ROOT / "serving" / "shipped"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SAMPLE = "bgan.v1.SamplingService/SampleBinaryImages"


class _Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """The receiving end of OTLP/gRPC."""

    def __init__(self):
        self.received = []

    def Export(self, request, context):  # noqa: N802
        self.received.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def resources(self):
        return [_plain(each.resource.attributes) for request in self.received for each in request.resource_spans]

    def spans(self):
        return [
            span
            for request in self.received
            for of_resource in request.resource_spans
            for scope in of_resource.scope_spans
            for span in scope.spans
        ]

    def wait_for(self, count):
        end = time.monotonic() + 60
        while len(spans := self.spans()) < count:
            assert time.monotonic() < end, spans
            time.sleep(0.05)
        return spans


def _plain(attributes):
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@contextmanager
def _receiver(address="127.0.0.1:0"):
    receiver = _Receiver()
    listener = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, listener)
    receiver.endpoint = f"http://127.0.0.1:{listener.add_insecure_port(address)}"
    listener.start()
    try:
        yield receiver
    finally:
        listener.stop(0).wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shipped")
    shutil.copy(SHIPPED / "mlp-dbn.onnx", folder)
    return folder


@contextmanager
def _traced(folder, receiver, *options, delay_ms=100, **env):
    environment = {"OTEL_BSP_SCHEDULE_DELAY": str(delay_ms), **env}
    with server(folder, "--trace-endpoint", receiver.endpoint, *options, env=environment) as process:
        yield process


def _sample(process, metadata=(), **fields):
    request = sampling_pb2.SampleBinaryImagesRequest(**fields)
    with grpc.insecure_channel(process.target) as channel:
        stub = sampling_pb2_grpc.SamplingServiceStub(channel)
        return list(stub.SampleBinaryImages(request, metadata=metadata))


def test_a_call_is_a_span_in_the_trace_of_its_caller(folder):
    with _receiver() as receiver, _traced(folder, receiver) as process:
        metadata = [("traceparent", f"00-{TRACE}-{PARENT}-01"), ("tracestate", "a=1"), ("x-request-id", "mine")]
        (batch,) = _sample(process, metadata, image_count=7)
        (span,) = receiver.wait_for(1)
        (resource,) = receiver.resources()
    assert span.name == SAMPLE
    assert span.kind == trace_pb2.Span.SPAN_KIND_SERVER
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.trace_state) == (TRACE, PARENT, "a=1")
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 60e9
    assert span.status.code == trace_pb2.Status.STATUS_CODE_UNSET
    attributes = _plain(span.attributes)
    assert attributes.pop("client.address").startswith("ipv")
    assert attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": SAMPLE,
        "rpc.response.status_code": "OK",
        "bgan.request_id": "mine",
        "bgan.model": "mlp-dbn",
        "bgan.revision": batch.revision,
        "bgan.images": 7,
    }
    assert resource["service.name"] == "bgan"
    assert resource["telemetry.sdk.language"] == "python"


def test_a_request_of_http_is_a_span_of_its_route(folder):
    with _receiver() as receiver, _traced(folder, receiver, "--http-port", 0) as process:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "mine"}
        answer = httpx.get(f"{process.http}/v1/models/mlp-dbn/images?count=7", headers=headers)
        (span,) = receiver.wait_for(1)
    assert span.name == "GET /v1/models/{name}/images"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    attributes = _plain(span.attributes)
    assert attributes.pop("client.address").startswith("ipv4:127.0.0.1:")
    assert attributes == {
        "http.request.method": "GET",
        "http.route": "/v1/models/{name}/images",
        "bgan.code": "OK",
        "bgan.request_id": "mine",
        "bgan.model": "mlp-dbn",
        "bgan.revision": answer.headers["bgan-revision"],
        "bgan.images": 7,
    }


def test_calls_that_fail_are_spans_too_and_begin_traces_of_their_own(folder):
    with _receiver() as receiver, _traced(folder, receiver, OTEL_SERVICE_NAME="digits") as process:
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            _sample(process, [("traceparent", f"00-{TRACE}-nonsense-01")], model="none", image_count=1)
        with (
            SamplingClient(process.target, timeout_seconds=1) as client,
            pytest.raises(DeadlineExceededError),
        ):
            list(client.sample_binary_images(image_count=10**9, timeout_seconds=1))
        by_code = {_plain(each.attributes)["rpc.response.status_code"]: each for each in receiver.wait_for(2)}
        assert {resource["service.name"] for resource in receiver.resources()} == {"digits"}
    unfound, late = by_code["NOT_FOUND"], by_code["DEADLINE_EXCEEDED"]
    assert unfound.status.code == trace_pb2.Status.STATUS_CODE_UNSET  # the caller's fault
    assert late.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    assert _plain(late.attributes)["bgan.images"] > 0
    assert "bgan.model" not in _plain(unfound.attributes)
    assert not unfound.parent_span_id
    assert unfound.trace_id.hex() != TRACE


def test_callers_decide_what_is_sampled(folder):
    with _receiver() as receiver, _traced(folder, receiver) as process:
        _sample(process, [("traceparent", f"00-{TRACE}-{PARENT}-00")], image_count=1)
        _sample(process, [("traceparent", f"00-{TRACE}-{PARENT}-01")], image_count=2)
        assert [_plain(span.attributes)["bgan.images"] for span in receiver.wait_for(1)] == [2]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_left_is_sent_when_the_server_stops(folder, workers):
    with _receiver() as receiver, _traced(folder, receiver, "--workers", workers, delay_ms=10**6) as process:
        for count in range(1, 9):
            _sample(process, image_count=count)
        assert process.stop() == 0
        counts = sorted(_plain(span.attributes)["bgan.images"] for span in receiver.spans())
    assert counts == list(range(1, 9))


def test_a_collector_that_is_away_costs_no_call(folder):
    with _receiver() as receiver:
        pass
    with _traced(folder, receiver) as process:
        assert len(_sample(process, image_count=1000, batch_size=100)) == 10
        end = time.monotonic() + 60
        while "exporting traces to" not in process.output():
            assert time.monotonic() < end, process.output()
            time.sleep(0.05)
        assert "Traceback" not in process.output()
        assert len(_sample(process, image_count=1000, batch_size=100)) == 10
        assert process.stop() == 0


@pytest.mark.parametrize(("endpoint", "workers"), [("localhost:4317", 1), ("http://a b", 2)])
def test_an_endpoint_that_is_none_is_one_line(folder, endpoint, workers):
    options = ("--models", folder, "--port", 0, "--workers", workers, "--trace-endpoint", endpoint)
    result = bgan_process("serve", *options)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        f"bgan: the trace endpoint '{endpoint}' is not the address of a collector; "
        "name where it takes OTLP over gRPC, such as http://localhost:4317"
    ]


def test_a_variable_of_opentelemetry_that_is_wrong_is_named(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "zip")
    with pytest.raises(StartError, match=r"does not start \(.*zip.*\); .*: OTEL_EXPORTER_OTLP_COMPRESSION"):
        start_tracing(ServerSettings(trace_endpoint="http://localhost:4317"))


@pytest.mark.parametrize("workers", [1, 2])
def test_without_the_extra_it_says_which(folder, tmp_path, workers):
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").touch()  # a package of that name without its parts
    options = ("--models", folder, "--port", 0, "--workers", workers)
    endpoint = f"http://127.0.0.1:{free_port()}"
    result = bgan_process("serve", *options, "--trace-endpoint", endpoint, env={"PYTHONPATH": str(tmp_path)})
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("bgan: a trace endpoint needs the package 'opentelemetry.")
    assert line.endswith("': pip install 'bgan[trace]'")


def test_nothing_of_it_is_loaded_where_nobody_asks():
    code = """if True:
        import sys
        from bgan.serving.config.settings import ServerSettings
        from bgan.serving.server import supervisor, worker
        from bgan.serving.telemetry.start import start_tracing
        tracing = start_tracing(ServerSettings(models="."))
        print(type(tracing).__name__, [name for name in sys.modules if name.startswith("opentelemetry")])
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "Tracing []\n"


def test_a_standard_variable_alone_turns_traces_on(folder):
    with _receiver() as receiver:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        with server(folder, env=environment) as process:
            _sample(process, image_count=7)
            (span,) = receiver.wait_for(1)
    assert span.name == SAMPLE


def test_a_standard_variable_without_the_packages_is_a_warning(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "bgan.serving.telemetry.otlp", raising=False)
    monkeypatch.delattr("bgan.serving.telemetry.otlp", raising=False)
    tracing = start_tracing(resolve({}, None).settings)
    assert type(tracing).__name__ == "Tracing"
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is set, but a trace endpoint needs the package" in caplog.text


def test_a_protocol_that_is_not_spoken_is_a_warning(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    settings = resolve({}, None).settings
    assert settings.trace_endpoint is None
    assert type(start_tracing(settings)).__name__ == "Tracing"
    assert "OTEL_EXPORTER_OTLP_PROTOCOL is http/protobuf: traces are sent over gRPC alone" in caplog.text
