"""Metadata, interceptors and channel options of a caller's own."""

import grpc
import pytest

from bgan.clients import AsyncSamplingClient, RetryPolicy, SamplingClient, SamplingError
from tests.kit.clients import Blocking
from tests.kit.liars import Liar, lying_server, responses

KINDS = pytest.mark.parametrize("kind", [SamplingClient, AsyncSamplingClient])


class Noted(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Notes the methods that it sees, and adds metadata to them."""

    def __init__(self, seen, name="one"):
        self.seen, self.name = seen, name

    def _noted(self, details):
        self.seen.append((self.name, details.method.rpartition("/")[2]))
        return details._replace(metadata=[*(details.metadata or ()), ("x-by", self.name)])

    def intercept_unary_unary(self, continuation, details, request):
        return continuation(self._noted(details), request)

    def intercept_unary_stream(self, continuation, details, request):
        return continuation(self._noted(details), request)


class Generating(grpc.UnaryStreamClientInterceptor):
    """Returns a bare generator for a call, as OpenTelemetry's does."""

    def intercept_unary_stream(self, continuation, details, request):
        def responses():
            yield from continuation(details, request)

        return responses()


class NotedAsync(grpc.aio.UnaryUnaryClientInterceptor, grpc.aio.UnaryStreamClientInterceptor):
    """The same for asyncio."""

    def __init__(self, seen, name="one"):
        self.seen, self.name = seen, name

    def _noted(self, details):
        self.seen.append((self.name, details.method.decode().rpartition("/")[2]))
        details.metadata.add("x-by", self.name)
        return details

    async def intercept_unary_unary(self, continuation, details, request):
        return await continuation(self._noted(details), request)

    async def intercept_unary_stream(self, continuation, details, request):
        return await continuation(self._noted(details), request)


def test_a_client_sends_metadata_with_every_call(make_client, sent):
    metadata = [("x-team", "digits"), ("x-team", "mnist"), ("x-key-bin", b"\x00\xff")]
    with make_client(sent.target, metadata=metadata, token="secret") as client:
        client.sample(4, request_id="mine")
        client.get_model()
    for call in sent.metadata:
        assert [pair for pair in call if pair[0].startswith("x-") and pair[0] != "x-request-id"] == metadata
        assert ("authorization", "Bearer secret") in call
    assert ("x-request-id", "mine") in sent.metadata[0]


def test_interceptors_see_every_call_the_first_first(make_client, sent):
    seen, kind = [], (NotedAsync if make_client is Blocking else Noted)
    with make_client(sent.target, interceptors=[kind(seen), kind(seen, "two")]) as client:
        assert len(client.sample(8)) == 8
        client.get_model()
    assert seen == [(name, call) for call in ("SampleBinaryImages", "GetModel") for name in ("one", "two")]
    assert [[value for key, value in call if key == "x-by"] for call in sent.metadata] == [["one", "two"]] * 2


def test_interceptors_see_each_try(make_client, sent):
    seen, kind, failures = [], (NotedAsync if make_client is Blocking else Noted), iter([True])

    def tell(request, context):
        if next(failures, False):
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        yield from responses(request)

    sent.tell = tell
    hasty = RetryPolicy(initial_backoff_seconds=0.01, max_backoff_seconds=0.01)
    with make_client(sent.target, interceptors=[kind(seen)], retry=hasty) as client:
        assert len(client.sample(4)) == 4
    assert seen == [("one", "SampleBinaryImages")] * 2


def test_list_models_is_one_call(make_client, sent):
    seen, kind = [], (NotedAsync if make_client is Blocking else Noted)
    with make_client(sent.target, interceptors=[kind(seen)]) as client:
        listed = client.list_models()
        assert (len(listed), listed.failures, listed.limits.max_image_count) == (1, (), 9)
    assert seen == [("one", "ListModels")]


def test_an_interceptor_may_answer_with_a_bare_generator(sent):
    for targets in (sent.target, [sent.target] * 2):
        with SamplingClient(targets, interceptors=[Generating()]) as client:
            assert len(client.sample(1_000, seed=1)) == 1_000
            batches = client.sample_binary_images(image_count=1_000, seed=1)
            next(batches)
            batches.close()


def test_options_of_a_channel_are_in_place_of_the_clients(make_client, sent):
    with make_client(sent.target, channel_options={"grpc.primary_user_agent": "digits"}) as client:
        client.get_model()
    assert dict(sent.metadata[0])["user-agent"].startswith("digits ")
    small = [("grpc.max_receive_message_length", 5)]
    with (
        make_client(sent.target, channel_options=small) as client,
        pytest.raises(SamplingError, match=r"larger than max \(\d+ vs. 5\)"),
    ):
        client.get_model()


@KINDS
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"metadata": 5}, "metadata is int; use a list"),
        ({"metadata": "x-team"}, "metadata is str; use a list"),
        ({"metadata": ["x-team"]}, "metadata is not of pairs"),
        ({"metadata": {"X-Team": "a"}}, "metadata 'X-Team' is no key; use small letters"),
        ({"metadata": {"grpc-x": "a"}}, "metadata 'grpc-x' is no key"),
        ({"metadata": {"x": "Ærø"}}, "metadata 'x' has a value that is no printable ASCII text"),
        ({"metadata": {"x": b"a"}}, "give bytes to a key in -bin"),
        ({"metadata": {"x-bin": "a"}}, "metadata 'x-bin' ends in -bin, so its value is bytes"),
        ({"metadata": {"x-request-id": "a"}}, "is sent as each call's request_id"),
        ({"metadata": {"authorization": "Bearer b"}, "token": "a"}, "is what the token is sent as"),
        ({"interceptors": [5]}, "int is no interceptor of this client; derive it from grpc"),
        ({"interceptors": 5}, "interceptors is int; use a list"),
        ({"channel_options": 5}, "channel_options is int; use a list"),
        ({"channel_options": ["grpc.x"]}, "channel_options has 'grpc.x'; use {name: value}"),
        ({"channel_options": {"grpc.x": 1.5}}, r"channel_options has \('grpc.x', 1.5\)"),
    ],
    ids=str,
)
def test_what_no_channel_would_take(kind, options, says):
    with pytest.raises(ValueError, match=says):
        kind("localhost:1", **options)


def test_an_interceptor_of_the_other_client():
    with pytest.raises(ValueError, match=r"Noted is no interceptor of this client; derive .* grpc\.aio\.Unary"):
        AsyncSamplingClient("localhost:1", interceptors=[Noted([])])
    with pytest.raises(ValueError, match=r"NotedAsync is no interceptor of this client; derive .* grpc\.Unary"):
        SamplingClient("localhost:1", interceptors=[NotedAsync([])])


@KINDS
def test_credentials_in_metadata_are_kept_from_plaintext_as_the_token_is(kind):
    with pytest.raises(ValueError, match="the token would go to example"):
        kind("example.org:1", metadata={"authorization": "Bearer a"})
    kind("example.org:1", metadata={"authorization": "Bearer a"}, plaintext_token=True)
    kind("localhost:1", metadata={"authorization": "Bearer a"})


class Recorder(Liar):
    """An honest server that notes the metadata of each call."""

    def __init__(self):
        super().__init__()
        self.metadata = []

    def _note(self, context):
        self.metadata.append([tuple(pair) for pair in context.invocation_metadata()])

    def SampleBinaryImages(self, request, context):  # noqa: N802 - gRPC's name
        self._note(context)
        yield from super().SampleBinaryImages(request, context)

    def GetModel(self, request, context):  # noqa: N802
        self._note(context)
        return super().GetModel(request, context)


@pytest.fixture
def sent():
    with lying_server(liar=Recorder()) as server:
        yield server
