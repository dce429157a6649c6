"""The health service: watches that are not read, that are many, and that a token must not have."""

import signal

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bgan.serving.security.tokens import make_token
from tests.kit.http2 import Peer
from tests.kit.servers import server
from tests.kit.waiting import eventually

Request = health_pb2.HealthCheckRequest
Status = health_pb2.HealthCheckResponse
MODEL = "bgan.v1.SamplingService/{}"


def _stub(channel):
    return health_pb2_grpc.HealthStub(channel)


def test_a_watch_that_is_not_read_keeps_no_one_waiting(models, tmp_path):
    (tmp_path / "mlp-dbn.onnx").write_bytes((models / "mlp-dbn.onnx").read_bytes())
    options = ("--model-poll-seconds", 0.1, "--grace-seconds", 2)
    with server(tmp_path, *options) as process, grpc.insecure_channel(process.target) as channel:
        watch = _stub(channel).Watch(Request(service=MODEL.format("mlp-sbn")))
        assert next(watch).status == Status.SERVICE_UNKNOWN
        with Peer(process.port, window=0) as stranger:
            for name in ("", MODEL.format("mlp-dbn")):
                stranger.call(b"/grpc.health.v1.Health/Watch", Request(service=name))
            # Its status is waiting for a reader by the time that another's call is answered.
            assert _stub(channel).Check(Request(), timeout=60).status == Status.SERVING
            for state in (Status.SERVING, Status.NOT_SERVING):
                if state == Status.SERVING:
                    (tmp_path / "mlp-sbn.onnx").write_bytes((models / "mlp-sbn.onnx").read_bytes())
                else:
                    (tmp_path / "mlp-sbn.onnx").unlink()
                assert next(watch).status == state
            process.process.send_signal(signal.SIGTERM)
            assert process.process.wait(60) == 0


def test_watches_of_one_address_are_bounded_and_one_that_ends_makes_room(small_models):
    options = ("--max-streams-per-caller", 2)
    with server(small_models, *options) as process, grpc.insecure_channel(process.target) as channel:
        watches = [_stub(channel).Watch(Request()) for _ in range(2)]
        assert [next(watch).status for watch in watches] == [Status.SERVING] * 2

        def code():
            watch = _stub(channel).Watch(Request())
            try:
                next(watch)
            except grpc.RpcError as error:
                return error.code()
            watch.cancel()
            return grpc.StatusCode.OK

        assert code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert _stub(channel).Check(Request(), timeout=60).status == Status.SERVING
        watches[0].cancel()
        eventually(lambda: code() == grpc.StatusCode.OK)


def test_a_token_learns_of_its_own_models_alone(models, tmp_path):
    tokens = tmp_path / "tokens.toml"
    token = make_token(tokens, "alice", models=["mlp-*"], images_per_minute=None, expires=None)
    metadata = (("authorization", f"Bearer {token}"),)
    options = ("--tokens", tokens, "--health", "token")
    with server(models, *options) as process, grpc.insecure_channel(process.target) as channel:
        for name, status in (("mlp-dbn", Status.SERVING), ("cnn-sbn", Status.SERVICE_UNKNOWN)):
            watch = _stub(channel).Watch(Request(service=MODEL.format(name)), metadata=metadata)
            assert next(watch).status == status
            watch.cancel()
        codes = []
        for name in ("cnn-sbn", "none"):
            with pytest.raises(grpc.RpcError) as caught:
                _stub(channel).Check(Request(service=MODEL.format(name)), metadata=metadata, timeout=60)
            codes.append((caught.value.code(), caught.value.details()))
        assert codes[0] == codes[1]
        assert codes[0][0] == grpc.StatusCode.NOT_FOUND
