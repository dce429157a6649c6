"""All images of a call as one batch, classes by name, the default model, and how objects show themselves."""

import asyncio
from contextlib import aclosing

import grpc
import numpy as np
import pytest

from bgan.clients import (
    AsyncSamplingClient,
    DeadlineExceededError,
    ImageBatch,
    InvalidRequestError,
    ModelNotFoundError,
    RevisionChangedError,
    SamplingClient,
    SamplingError,
)
from bgan.clients._messages import decode_batch
from tests.clients.responses import make_response
from tests.fixtures.write import CLASSES
from tests.kit.liars import lying_server, responses
from tests.kit.servers import free_port


@pytest.fixture
def client(make_client, classes_server):
    with make_client(classes_server.target) as client:
        yield client


def test_one_batch_has_all_images_of_the_stream(client):
    batch = client.sample(700, seed=1, first_index=5, batch_size=64, include_probabilities=True)
    batches = list(client.sample_binary_images(image_count=700, seed=1, first_index=5, include_probabilities=True))
    assert len(batches) > 1
    assert batch == ImageBatch.concatenate(batches)
    assert (len(batch), batch.seed, batch.first_index, batch.next_index) == (700, 1, 5, 705)
    assert batch.images.shape == batch.probabilities.shape == (700, 3, 5, 9)
    assert batch.labels.shape == (700,)
    assert client.sample(3, seed=1, model="plain").labels is None


def test_several_servers_make_one_batch(make_client, client, classes_server):
    with make_client([classes_server.target] * 2) as several:
        assert several.sample(900, seed=2, labels=["owl", 0]) == client.sample(900, seed=2, labels=[4, 0])


def test_batches_that_do_not_follow_each_other_are_not_one():
    first = decode_batch(make_response(), expected_index=10, target="here")
    other = decode_batch(make_response(seed=6, first_index=12), expected_index=12, target="here")
    with pytest.raises(ValueError, match="not of one stream"):
        ImageBatch.concatenate([first, other])
    with pytest.raises(ValueError, match="not of one stream"):
        ImageBatch.concatenate([first, first])
    with pytest.raises(ValueError, match="no batches"):
        ImageBatch.concatenate([])


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        (["mouse"], [3]),
        ("mouse", [3]),
        ("3", [2]),  # a name, as text is
        (3, [3]),
        (np.int64(1), [1]),
        (["cat", 4, "dog"], [0, 4, 1]),
        (np.array(["cat", "owl"]), [0, 4]),
        (CLASSES, [0, 1, 2, 3, 4]),
    ],
    ids=str,
)
def test_classes_by_name_or_number(client, labels, numbers):
    batch = client.sample(7, seed=1, first_index=2, labels=labels)
    assert batch.labels.tolist() == [numbers[i % len(numbers)] for i in range(2, 9)]
    assert batch == client.sample(7, seed=1, first_index=2, labels=numbers)


def test_a_name_of_no_class(client):
    with pytest.raises(InvalidRequestError, match="has 'cow', but the classes of sbn are cat, dog, 3, mouse, owl"):
        client.sample(3, labels=["cat", "cow"], first_index=5)
    with pytest.raises(InvalidRequestError) as caught:
        client.sample(3, labels=["cow"], first_index=5)
    assert caught.value.next_index == 5


@pytest.mark.parametrize("labels", ["cat", ["cat", "dog"], 1, [0, 1, 2]], ids=str)
def test_labels_of_an_unconditional_model_are_one_line(client, labels):
    says = "labels.* the model 'plain' is not class-conditional; leave labels out"
    with pytest.raises(InvalidRequestError, match=says) as caught:
        client.sample(3, model="plain", labels=labels)
    assert list(caught.value.violations) == ["labels"]
    assert "\n" not in str(caught.value)


def test_a_stream_of_names_resumes_on_its_revision_or_not_at_all(client):
    info = client.get_model()
    batch = client.sample(3, seed=1, labels="cat", revision=info.revision)
    assert batch.revision == info.revision
    with pytest.raises(RevisionChangedError) as caught:
        client.sample(3, seed=1, labels="cat", revision="0" * 64, first_index=8)
    assert caught.value.next_index == 8
    with pytest.raises(ModelNotFoundError):
        client.sample(3, model="none", labels="cat")


def test_a_stream_of_names_is_of_the_model_that_was_asked_for_them(make_client):
    asked, seconds = [], []
    with lying_server() as liar:
        liar.model.model.model.classes.extend(["cat", "dog"])

        def tell(request, context):
            asked.append(request)
            seconds.append(context.time_remaining())
            yield from responses(request)

        def get_model(request, context):
            seconds.append(context.time_remaining())
            return liar.model

        liar.tell, liar.get_model = tell, get_model
        with make_client(liar.target, timeout_seconds=60) as client:
            assert len(client.sample(4, labels=["dog", "cat"], timeout_seconds=50)) == 4
    (request,) = asked
    assert (request.model, request.revision, list(request.labels)) == ("m", "r", [1, 0])
    assert all(0 < each < 51 for each in seconds)  # what is left of the 50, which gRPC rounds up, for both


def test_the_timeout_covers_the_question_for_names_too(make_client):
    # No name of a host: gRPC would still look it up, and read the environment, while a later test changes that.
    with (
        make_client(f"127.0.0.1:{free_port()}") as client,
        pytest.raises((DeadlineExceededError, SamplingError)) as caught,
    ):
        client.sample(3, labels="cat", timeout_seconds=0.01)
    assert caught.value.next_index == 0


def test_no_model_is_the_default_one(client, running, make_client):
    assert (
        client.sample(3, seed=1) == client.sample(3, seed=1, model=None) == client.sample(3, seed=1, model="sbn")
    )
    assert client.get_model(None) == client.get_model() == client.get_model("sbn")
    with make_client(running.target) as other:
        assert other.sample(3, model=None).model == "mlp-dbn"


def test_objects_show_what_they_are(client):
    info = client.get_model()
    batch = client.sample(3, seed=7, first_index=2)
    short = f"{info.revision[:8]}..."
    assert repr(batch) == (
        f"ImageBatch(3 images of 3x5x9, model='sbn', revision='{short}', seed=7, first_index=2, labels)"
    )
    assert repr(info) == (
        f"ModelInfo('sbn', version=None, revision='{short}', neuron='stochastic', network='mlp', 3x5x9, "
        "5 classes, default)"
    )
    listed = repr(client.list_models())
    assert listed.startswith("ModelList(\n    ModelInfo('dbn'")
    assert "Limits(max_image_count=" in listed
    assert repr(SamplingClient(["a:1", "b:2"])) == "SamplingClient('a:1', 'b:2')"


def test_what_a_server_sends_commands_no_terminal():
    batch = decode_batch(make_response(model="\x1b[2J\n", revision="\x07"), expected_index=10, target="here")
    assert repr(batch).isprintable()


def test_a_closed_client_says_so():
    client = SamplingClient("localhost:1", token="secret", metadata={"x-key": "hidden"})
    client.close()
    assert repr(client) == "SamplingClient('localhost:1', closed)"
    with pytest.raises(SamplingError, match="the client was closed"):
        client.sample(1)


async def test_an_asyncio_client_closes_as_asyncio_has_it(classes_server):
    async with aclosing(AsyncSamplingClient(classes_server.target)) as client:
        assert len(await client.sample(3, seed=1)) == 3
    assert repr(client) == f"AsyncSamplingClient('{classes_server.target}', closed)"
    with pytest.raises(SamplingError) as caught:
        await client.sample(3, seed=1)
    assert caught.value.code == grpc.StatusCode.CANCELLED


async def test_an_asyncio_call_of_names_can_be_cancelled(classes_server):
    async with AsyncSamplingClient(classes_server.target, timeout_seconds=None) as client:
        batches = client.sample_binary_images(image_count=100_000, seed=1, labels="owl", batch_size=10)
        async with aclosing(batches):
            assert (await anext(batches)).labels.tolist() == [4] * 10
        task = asyncio.create_task(client.sample(1_000_000, seed=1, labels="owl", batch_size=1))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(await client.sample(3)) == 3
