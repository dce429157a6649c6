"""Bytes that are no messages, sent to every method of a real server. `make soak` sends many more."""

import asyncio
import random

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bgan.clients import SamplingClient
from bgan.serving.models.engine import load_engine
from tests.kit.servers import server
from tests.reliability import fuzzing
from tests.reliability.access import Access
from tests.reliability.message_rules import facts_of
from tests.reliability.messages import encoded, mutated, structured, valid_messages, with_each_value
from tests.reliability.wire import UNKNOWN_METHODS, methods_of, send

CORRUPT = b"\xff\xff\xff"


@pytest.fixture(scope="module")
def victim(models):
    options = (
        "--default-model",
        "mlp-dbn",
        "--max-image-count",
        1_000,
        "--max-batch-size",
        200,
        "--log-calls",
        "none",
    )
    with server(models, *options) as process:
        yield process


@pytest.fixture(scope="module")
def access(victim):
    return Access(victim.target)


@pytest.fixture(scope="module")
def methods(access):
    return methods_of(access)


@pytest.fixture(scope="module")
def facts(access):
    return facts_of(access)


@pytest.fixture(autouse=True)
def _serves_on(victim, models):
    """Whatever came, it is the same server, gives the right bits, and has logged no trace."""
    yield
    assert victim.process.poll() is None
    with SamplingClient(victim.target) as client:
        (batch,) = client.sample_binary_images(image_count=9, seed=3, model="mlp-dbn")
    assert batch.packed_images.tobytes() == load_engine(models / "mlp-dbn.onnx").sample(3, 0, 9).packed_images
    assert [line for line in victim.output().splitlines() if " INFO " not in line] == []


def _send(target, *calls):
    """The codes of some calls, each a method and its messages."""

    async def all_of_them():
        async with grpc.aio.insecure_channel(target) as channel:
            return [await send(channel, method, messages) for method, messages in calls]

    return asyncio.run(all_of_them())


def test_every_service_is_known(methods):
    services = {method.path.split("/")[1] for method in methods}
    assert services == {
        "bgan.v1.SamplingService",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_bytes_that_are_no_message_are_an_invalid_argument(victim, methods):
    codes = _send(victim.target, *[(method, [CORRUPT]) for method in methods])
    assert set(codes) == {grpc.StatusCode.INVALID_ARGUMENT}
    (reflection,) = (method for method in methods if method.takes_stream)
    good = b"\x3a\x01*"  # list_services
    assert _send(victim.target, (reflection, [good, good])) == [grpc.StatusCode.OK]
    assert _send(victim.target, (reflection, [good, CORRUPT])) == [grpc.StatusCode.INVALID_ARGUMENT]


def test_what_is_wrong_with_them_is_said(victim):
    with grpc.insecure_channel(victim.target) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/bgan.v1.SamplingService/GetModel")(CORRUPT)
    assert "its bytes are no message of this method" in caught.value.details()
    _, detail = rpc_status.from_call(caught.value).details
    bad_request = error_details_pb2.BadRequest()
    assert detail.Unpack(bad_request)
    assert [violation.field for violation in bad_request.field_violations] == ["request"]


def test_methods_that_are_not_there_are_unimplemented(victim, methods):
    left_out = [method for method in methods if method.path == "/grpc.health.v1.Health/List"]
    calls = [(method, [data]) for method in UNKNOWN_METHODS for data in (b"", CORRUPT, b"\x08\x01")]
    codes = _send(victim.target, *calls, *[(method, [b""]) for method in left_out])
    assert set(codes) == {grpc.StatusCode.UNIMPLEMENTED}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_structured_messages_and_their_mutations(victim, methods, facts, data):
    method = data.draw(st.sampled_from(methods))
    message = data.draw(structured(method.request, ["mlp-dbn", "cnn-sbn"])).SerializeToString()
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    messages = [message, *[mutated(rng, message, message) for _ in range(3)], data.draw(st.binary(max_size=200))]
    codes = _send(victim.target, *[(method, [each]) for each in messages])
    calls = zip(messages, codes, strict=True)
    assert [problem for each, code in calls if (problem := fuzzing.wrong_end(method, [each], code, facts))] == []


def test_each_field_of_each_request_at_its_edges(victim, methods, facts):
    words = [text for each in facts.served for text in (each.model.name, each.revision)]
    calls = [
        (method, [message])
        for method in methods
        for fields in valid_messages(method.path, facts.served[0].model)
        for message in with_each_value(method.request, encoded(method.request, fields), words)
    ]
    ends = zip(calls, _send(victim.target, *calls), strict=True)
    assert [problem for call, code in ends if (problem := fuzzing.wrong_end(*call, code, facts))] == []
    assert len(calls) > 500


def test_two_thousand_inputs(access, facts):
    tally = asyncio.run(fuzzing.fuzz(access, facts, fuzzing.inputs(access, facts, seed=4), count=2_000))
    assert tally.breaches == []
    assert tally.count == sum(tally.ends.values()) == 2_000
    codes = tally.codes()
    assert min(codes[code.name] for code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)) > 200


def test_connections_that_speak_no_http2(access):
    fuzzing.garbage(access, seed=5, count=100)
