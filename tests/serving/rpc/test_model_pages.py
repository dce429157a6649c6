"""Pages of models: every model once, in the registry's order, whatever comes or goes between them."""

from base64 import urlsafe_b64encode

import pytest

from bgan.clients import SamplingClient
from bgan.serving.errors import InvalidRequestError
from bgan.serving.models.engine import load_engine
from bgan.serving.models.registry import Registry
from bgan.serving.rpc.model_pages import MAX_PAGE_SIZE, page_of
from bgan.v1 import sampling_pb2_grpc

PLACES = [("a", 10), ("a", 9), ("a", 0), ("a.b", 2), ("b", 0), ("é", 1)]  # as a registry has them


@pytest.fixture(scope="module")
def registry(small_models):
    (path,) = small_models.glob("*.onnx")
    return Registry(load_engine(path, name=name, version=version) for name, version in PLACES)


def _places(engines):
    return [(engine.manifest.name, engine.version) for engine in engines]


@pytest.mark.parametrize("size", [1, 2, 4, 6, 7, MAX_PAGE_SIZE + 1, 0])
def test_pages_have_every_model_once_in_order(registry, size):
    found, token, count = [], "", 0
    while token or not count:
        engines, token = page_of(registry.engines, size, token)
        found, count = found + _places(engines), count + 1
        assert not size or len(engines) <= size
    assert found == PLACES
    assert count == (-(-len(PLACES) // size) if size else 1)


def test_no_page_has_more_than_there_may_be(registry):
    engines, token = page_of(registry.engines * 200, 2_000, "")
    assert len(engines) == MAX_PAGE_SIZE
    assert token


@pytest.mark.parametrize("gone", range(len(PLACES)))
def test_a_model_that_goes_between_two_pages_takes_none_with_it(registry, gone):
    first, token = page_of(registry.engines, 3, "")
    left = [engine for index, engine in enumerate(registry.engines) if index != gone]
    second, _ = page_of(left, 3, token)
    assert _places(second) == [place for index, place in enumerate(PLACES) if index >= 3 and index != gone]
    assert not set(_places(first)) & set(_places(second))


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "a" * 2_000,
        "é",
        "\0",
        *(urlsafe_b64encode(text).decode() for text in (b"\xff", b"a\nb", b"1", b"\n", b"-1\na", b" 1\na")),
    ],
)
def test_a_token_that_no_server_has_given_is_refused(registry, token):
    with pytest.raises(InvalidRequestError) as caught:
        page_of(registry.engines, -1, token)
    assert set(caught.value.violations) == {"page_size", "page_token"}


def test_a_client_has_all_pages_as_one_list(running, monkeypatch):
    with SamplingClient(running.target) as client:
        whole = client.list_models()
        asked, init = [], sampling_pb2_grpc.SamplingServiceStub.__init__

        def begin(stub, channel):
            """As a server that gives one model a page."""
            init(stub, channel)
            listed = stub.ListModels

            def call(request, **options):
                asked.append(request.page_token)
                request.page_size = 1
                return listed(request, **options)

            stub.ListModels = call

        monkeypatch.setattr(sampling_pb2_grpc.SamplingServiceStub, "__init__", begin)
        with SamplingClient(running.target) as paging:
            assert paging.list_models() == whole
    assert len(set(asked)) == len(whole.models) == 3
