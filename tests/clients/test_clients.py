"""The blocking and the asyncio client against a real server; each test is written for both."""

import inspect

import numpy as np
import pytest

from bgan.clients import (
    AsyncSamplingClient,
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    RetryPolicy,
    SamplingClient,
    SamplingError,
    ServerUnavailableError,
)
from tests.kit.clients import Blocking

ONCE = RetryPolicy(attempts=1)
PUBLIC_METHODS = {
    name
    for client in (SamplingClient, AsyncSamplingClient)
    for name, _ in inspect.getmembers(client, inspect.isfunction)
    if not name.startswith("_") and name != "aclose"  # which is asyncio's own name of close
}


@pytest.fixture(params=[SamplingClient, Blocking], ids=["blocking", "asyncio"])
def client(request, running):
    with request.param(running.target) as client:
        yield client


@pytest.fixture(params=[SamplingClient, Blocking], ids=["blocking", "asyncio"])
def make_client(request):
    return request.param


@pytest.mark.parametrize("name", ["__init__", *sorted(PUBLIC_METHODS)])
def test_both_clients_have_the_same_methods(name):
    """Alike in the names, kinds, defaults and annotations of their parameters, and in their docstrings."""
    blocking, asynchronous = (getattr(client, name) for client in (SamplingClient, AsyncSamplingClient))
    assert inspect.signature(blocking, eval_str=True) == inspect.signature(asynchronous, eval_str=True)
    assert inspect.getdoc(blocking) == inspect.getdoc(asynchronous) != ""


def test_a_client_needs_a_server():
    for client in (SamplingClient, AsyncSamplingClient):
        with pytest.raises(ValueError, match="no server was named"):
            client([])


def test_images_arrive_in_order_as_arrays(client):
    batches = list(client.sample_binary_images(image_count=1000, seed=1, batch_size=300))
    assert [(batch.first_index, len(batch)) for batch in batches] == [(0, 300), (300, 300), (600, 300), (900, 100)]
    images = np.concatenate([batch.images for batch in batches])
    assert images.shape == (1000, 1, 28, 28)
    assert images.dtype == np.uint8
    assert set(np.unique(images)) == {0, 1}
    assert {(batch.model, batch.seed, batch.probabilities) for batch in batches} == {("mlp-dbn", 1, None)}


def test_a_stream_can_be_entered_anywhere(client):
    (whole,) = client.sample_binary_images(image_count=60, seed=9, model="cnn-sbn")
    (part,) = client.sample_binary_images(image_count=10, seed=9, first_index=40, model="cnn-sbn")
    np.testing.assert_array_equal(part.images, whole.images[40:50])
    assert part.images.shape == (10, 2, 9, 13)
    assert (part.first_index, part.next_index, part.revision) == (40, 50, whole.revision)


def test_probabilities_on_request(client):
    (batch,) = client.sample_binary_images(image_count=20, seed=2, include_probabilities=True)
    assert batch.probabilities.shape == (20, 1, 28, 28)
    np.testing.assert_array_equal(batch.images, batch.probabilities > 0.5)


def test_models_and_limits(client):
    models = client.list_models()
    assert [model.name for model in models] == ["cnn-sbn", "mlp-dbn", "mlp-sbn"]
    assert (len(models), models[:2], models.failures) == (3, models.models[:2], ())
    assert client.get_model() == models[1]
    sbn = client.get_model("cnn-sbn")
    assert (sbn.neuron, sbn.binarization, sbn.network) == ("stochastic", "bernoulli", "cnn")
    assert (sbn.image_shape, sbn.latent_size, sbn.dataset) == ((2, 9, 13), 10, "digits")
    assert (sbn.is_default, sbn.arithmetic) == (False, "float")
    assert models.limits.max_image_count == 100_000


def test_errors_are_typed(client):
    with pytest.raises(InvalidRequestError) as caught:
        list(client.sample_binary_images(image_count=0, first_index=-2))
    assert set(caught.value.violations) == {"image_count", "first_index"}
    assert caught.value.next_index == -2
    for call in (
        lambda: client.get_model("x"),
        lambda: list(client.sample_binary_images(image_count=1, model="x")),
    ):
        with pytest.raises(ModelNotFoundError, match="there are cnn-sbn, mlp-dbn, mlp-sbn"):
            call()
    with pytest.raises(SamplingError, match="out of range"):
        list(client.sample_binary_images(image_count=2**64))


def test_the_timeout_holds_for_streams_and_says_where_to_resume(client):
    received = 0
    with pytest.raises(DeadlineExceededError) as caught:
        for batch in client.sample_binary_images(
            image_count=100_000, seed=1, model="mlp-sbn", batch_size=1, timeout_seconds=0.3
        ):
            received += len(batch)
    assert caught.value.next_index == received


def test_a_stream_can_be_left_early(client):
    batches = client.sample_binary_images(image_count=100_000, seed=1)
    next(batches)
    batches.close()
    assert client.get_model().name == "mlp-dbn"


def test_no_server_is_unavailable(make_client):
    with make_client("localhost:1", retry=ONCE) as client:
        with pytest.raises(ServerUnavailableError, match="localhost:1"):
            client.list_models()
        with pytest.raises(ServerUnavailableError) as caught:
            list(client.sample_binary_images(image_count=5, first_index=7))
        assert caught.value.next_index == 7
