"""Servers that lie in one field each, against the blocking, the asyncio and the split client."""

import threading

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2

from bgan.clients import RetryPolicy, SamplingClient, SamplingError
from bgan.v1 import model_pb2, sampling_pb2
from tests.kit.cli import bgan, error_line
from tests.kit.clients import Blocking
from tests.kit.liars import LIMITS, abort, lying_server, responses, served_model

HASTY = RetryPolicy(attempts=2, initial_backoff_seconds=0.01, max_backoff_seconds=0.01)
ASKED = {
    "image_count": 12,
    "seed": 7,
    "first_index": 5,
    "model": "m",
    "version": 3,
    "labels": [1, 0, 2],
    "include_probabilities": True,
    "batch_size": 4,
}


@pytest.fixture(scope="module")
def liar():
    with lying_server() as server:
        yield server


@pytest.fixture(params=["blocking", "asyncio", "split", "split asyncio"])
def client(request, liar):
    make_client = Blocking if "asyncio" in request.param else SamplingClient
    target = [liar.target] * 2 if "split" in request.param else liar.target
    with make_client(target, retry=HASTY, timeout_seconds=60) as client:
        yield client


def shape(*sizes):
    return model_pb2.ImageShape(**dict(zip(("channels", "height", "width"), sizes, strict=True)))


def probabilities(value, count=4):
    return np.full(6 * count, value, "<f4").tobytes()


# What every batch of four images has instead of the truth.
LIES = {
    "another seed": {"seed": 8},
    "a seed below 0": {"seed": -1},
    "another model": {"model": "x"},
    "no model": {"model": ""},
    "another version": {"version": 2},
    "no version": {"version": 0},
    "no revision": {"revision": ""},
    "an earlier index": {"first_index": 4},
    "a later index": {"first_index": 6},
    "fewer images than bytes": {"image_count": 3},
    "more images than bytes": {"image_count": 5},
    "no image": {"image_count": 0},
    "minus one image": {"image_count": -1},
    "no shape": {"image_shape": None},
    "no channel": {"image_shape": shape(0, 2, 3), "packed_images": b""},
    "sides below 0": {"image_shape": shape(1, -2, -3)},
    "a shape of other bytes": {"image_shape": shape(1, 4, 3)},
    "a shape that overflows": {"image_shape": shape(2**31 - 1, 2**31 - 1, 2**31 - 1)},
    "no images": {"packed_images": b""},
    "bits of padding": {"packed_images": bytes([0, 0, 0, 1])},
    "no probabilities": {"probabilities": b""},
    "probabilities of fewer images": {"probabilities": bytes(4 * 6 * 3)},
    "probabilities that are no floats": {"probabilities": bytes(7)},
    "probabilities above 1": {"probabilities": probabilities(1.5)},
    "probabilities below 0": {"probabilities": probabilities(-0.5)},
    "probabilities that are no numbers": {"probabilities": probabilities(np.nan)},
    "other labels": {"labels": [2, 2, 2, 2]},
    "labels below 0": {"labels": [-1, -1, -1, -1]},
    "labels of fewer images": {"labels": [1, 0, 2]},
    "no labels": {"labels": []},
}


def changed(response, fields):
    for name, value in fields.items():
        response.ClearField(name)
        if isinstance(value, list):
            getattr(response, name).extend(value)
        elif isinstance(value, model_pb2.ImageShape):
            response.image_shape.CopyFrom(value)
        elif value is not None:
            setattr(response, name, value)
    return response


def refused(client, **changes):
    with pytest.raises(SamplingError) as caught:
        list(client.sample_binary_images(**{**ASKED, **changes}))
    return caught.value


def test_the_truth_is_believed(liar, client):
    liar.tell = lambda request, context: responses(request)
    batches = list(client.sample_binary_images(**ASKED))
    assert [len(batch) for batch in batches if batch.seed == 7 and batch.images.shape[1:] == (1, 2, 3)]
    assert sum(map(len, batches)) == 12
    assert [label for batch in batches for label in batch.labels] == [[1, 0, 2][i % 3] for i in range(5, 17)]


@pytest.mark.parametrize("fields", LIES.values(), ids=LIES)
def test_a_field_that_is_not_as_asked_for_or_not_valid(liar, client, fields):
    liar.tell = lambda request, context: (changed(each, fields) for each in responses(request))
    error = refused(client)
    assert (type(error), error.code) == (SamplingError, grpc.StatusCode.DATA_LOSS)
    assert 5 <= error.next_index < 17
    assert "is it another version?" in str(error)


def second(request, **fields):
    """Batches of which the second is changed."""
    first, *rest = responses(request)
    yield first
    for each in rest:
        yield changed(each, fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"image_shape": shape(1, 3, 2)},
        {"image_shape": shape(1, 2, 2)},
        {"seed": 9},
        {"model": "x"},
        {"labels": [0] * 4},
    ],
    ids=str,
)
def test_what_was_not_asked_for_stays_as_it_began(liar, client, fields):
    liar.tell = lambda request, context: second(request, **fields)
    error = refused(client, seed=None, model="", version=None, labels=(), include_probabilities=False)
    assert error.code == grpc.StatusCode.DATA_LOSS


SEQUENCES = {
    "repeats": lambda request: [next(responses(request))] * 3,
    "ends at once": lambda request: [],
    "ends early": lambda request: [next(responses(request))],
    "leaves images out": lambda request: list(responses(request))[::2],
    "batches of another size": lambda request: responses(
        sampling_pb2.SampleBinaryImagesRequest(**{**ASKED, "image_count": 3, "first_index": request.first_index})
    ),
    "bytes that are no message": lambda request: [b"\xff\xff\xff"],
    "a model that is no text": lambda request: [b"\x0a\x02\xff\xff"],
}


@pytest.mark.parametrize("tell", SEQUENCES.values(), ids=SEQUENCES)
def test_a_stream_that_is_not_what_was_asked_for(liar, client, tell, caplog):
    liar.tell = lambda request, context: tell(request)
    assert refused(client).code in {grpc.StatusCode.DATA_LOSS, grpc.StatusCode.INTERNAL}
    assert not any(record.exc_info for record in caplog.records if record.name.startswith("grpc")), (
        "a traceback, which gRPC would log"
    )


def garbage(message):
    return any_pb2.Any(type_url=f"type.googleapis.com/{message.DESCRIPTOR.full_name}", value=b"\xff\xff")


DETAILS = {
    "unreadable": [garbage(error_details_pb2.ErrorInfo()), garbage(error_details_pb2.RetryInfo())],
    "a revision without its fields": [error_details_pb2.ErrorInfo(reason="REVISION_NOT_SERVED")],
    "a wait of ages": [error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2**62))],
    "a wait in the past": [error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=-9))],
}


@pytest.mark.parametrize("details", DETAILS.values(), ids=DETAILS)
def test_details_of_an_error_that_make_no_sense(liar, client, details):
    liar.tell = lambda request, context: abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, *details)
    assert refused(client, timeout_seconds=None).next_index in {5, 11}


def test_a_status_that_is_no_message(liar, client):
    def tell(request, context):
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"), ("x-request-id", "\x7f forged")))
        context.abort(grpc.StatusCode.INTERNAL, "\x1b[2J" + "long" * 1000)

    liar.tell = tell
    error = refused(client)
    assert error.request_id is None
    assert str(error).isprintable()
    assert len(str(error)) < 1200


def test_a_server_that_does_not_end_keeps_no_one_who_has_all_images(liar, client, monkeypatch):
    is_over = threading.Event()

    def tell(request, context):
        yield from responses(request)
        is_over.wait(60)

    for module in ("call", "tasks"):
        monkeypatch.setattr(f"bgan.clients._stream.{module}.END_SECONDS", 0.05)
    liar.tell = tell
    try:
        assert sum(map(len, client.sample_binary_images(**ASKED, timeout_seconds=None))) == 12
    finally:
        is_over.set()


MODELS = {
    "another name": served_model(name="x"),
    "no name": served_model(name=""),
    "an unknown neuron": served_model(neuron=99),
    "no binarization": served_model(binarization=0),
    "an unknown arithmetic": served_model(arithmetic=9),
    "no shape": served_model(image_shape=shape(0, 0, 0)),
    "no latents": served_model(latent_size=0),
    "fewer gates than none": served_model(gates=model_pb2.Gates(count=-1)),
    "more active than all": served_model(gates=model_pb2.Gates(count=2, mean_active_share=1.5)),
    "a share that is no number": served_model(gates=model_pb2.Gates(count=2, mean_active_share=np.nan)),
    "a slope that is no number": served_model(slope=np.nan),
    "nothing": sampling_pb2.ServedModel(),
}


@pytest.mark.parametrize("served", MODELS.values(), ids=MODELS)
def test_models_that_cannot_be(liar, client, served):
    liar.model = sampling_pb2.GetModelResponse(model=served, limits=LIMITS)
    liar.models = sampling_pb2.ListModelsResponse(models=[served, served], limits=LIMITS)
    for call in (lambda: client.get_model("m"), client.list_models):
        with pytest.raises(SamplingError) as caught:
            call()
        assert caught.value.code == grpc.StatusCode.DATA_LOSS


def test_a_list_of_models_without_an_end(liar, client):
    liar.models = sampling_pb2.ListModelsResponse(limits=LIMITS, next_page_token="again")
    with pytest.raises(SamplingError, match="sent a page of its models twice") as caught:
        client.list_models()
    assert caught.value.code == grpc.StatusCode.DATA_LOSS


def test_answers_about_models_that_cannot_be(liar, client):
    liar.model, liar.models = (
        sampling_pb2.GetModelResponse(model=served_model(), limits=sampling_pb2.Limits(max_batch_size=-1)),
        sampling_pb2.ListModelsResponse(models=[served_model()]),
    )
    for call in (client.get_model, client.list_models):
        with pytest.raises(SamplingError, match="sent the limits"):
            call()
    liar.model = sampling_pb2.GetModelResponse(model=served_model(), limits=LIMITS)
    with pytest.raises(SamplingError, match="in version None, not the default model in version 4"):
        client.get_model(version=4)
    liar.model = liar.models = b"\xff\xff"
    for call in (client.get_model, client.list_models):
        with pytest.raises(SamplingError):
            call()


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png"])
@pytest.mark.parametrize("fields", [{"image_shape": shape(1, 3, 2)}, {"seed": 9}, {"labels": [0] * 4}], ids=str)
def test_no_file_is_written_of_what_is_not_one_stream(liar, tmp_path, suffix, fields):
    liar.tell = lambda request, context: second(request, **fields)
    result = bgan("sample", "--server", liar.target, "-n", 12, "--seed", 7, "-o", tmp_path / f"x{suffix}")
    line = error_line(result)
    assert liar.target in line
    assert line.endswith("; 4 of 12 images are kept, and the same command resumes")
    assert not (tmp_path / f"x{suffix}").exists()
    liar.tell = lambda request, context: responses(request)
    assert bgan(*result.args[1:]).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == [f"x{suffix}"]
