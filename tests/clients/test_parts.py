import json

import grpc
import numpy as np
import pytest
from PIL import Image

from bgan.clients import ImageBatch, RetryPolicy, SamplingClient, SamplingError, _messages
from bgan.clients._files import make_grid, write_batches
from bgan.clients._messages import build_request
from bgan.clients._stream.cursor import Cursor, Origin
from bgan.clients._stream.shards import Pieces
from bgan.v1 import model_pb2, sampling_pb2


def _response(**fields):
    return sampling_pb2.SampleBinaryImagesResponse(
        **{
            "model": "m",
            "revision": "r",
            "seed": 5,
            "first_index": 10,
            "image_count": 2,
            "image_shape": model_pb2.ImageShape(channels=1, height=3, width=3),
            "packed_images": bytes([0b10000000, 0b10000000, 0b01010101, 0]),
            **fields,
        }
    )


def decode_batch(response, *, expected_index):
    return _messages.decode_batch(response, expected_index=expected_index, target="here")


def test_bits_are_unpacked_row_by_row_most_significant_first():
    batch = decode_batch(_response(), expected_index=10)
    assert batch.images.tolist() == [[[[1, 0, 0], [0, 0, 0], [0, 0, 1]]], [[[0, 1, 0], [1, 0, 1], [0, 1, 0]]]]
    assert (len(batch), batch.next_index) == (2, 12)


@pytest.mark.parametrize(
    "fields", [{"first_index": 11}, {"image_count": 3}, {"packed_images": b"x"}, {"image_count": 0}]
)
def test_a_response_that_does_not_follow_is_refused(fields):
    with pytest.raises(SamplingError) as caught:
        decode_batch(_response(**fields), expected_index=10)
    assert caught.value.code == grpc.StatusCode.DATA_LOSS
    assert caught.value.next_index == 10


def test_a_seed_of_zero_is_a_seed():
    options = {"image_count": 1, "model": "", "first_index": 0, "batch_size": None, "include_probabilities": False}
    assert build_request(seed=0, **options).HasField("seed")
    assert not build_request(seed=None, **options).HasField("seed")


def _service_config(policy):
    (method,) = json.loads(dict(policy.channel_options())["grpc.service_config"])["methodConfig"]
    return method


def test_grpc_retries_only_calls_that_are_no_streams():
    method = _service_config(RetryPolicy(attempts=3, initial_backoff_seconds=0.5))
    service = "bgan.v1.SamplingService"
    assert method["name"] == [{"service": service, "method": name} for name in ("ListModels", "GetModel")]
    assert method["retryPolicy"]["maxAttempts"] == 3
    assert method["retryPolicy"]["initialBackoff"] == "0.5s"
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert _service_config(RetryPolicy(attempts=9))["retryPolicy"]["maxAttempts"] == 5
    assert "retryPolicy" not in _service_config(RetryPolicy(attempts=1))


@pytest.mark.parametrize("settings", [{"attempts": 0}, {"initial_backoff_seconds": 3}])
def test_retry_policies_that_make_no_sense(settings):
    with pytest.raises(ValueError, match="at least 1 attempt"):
        RetryPolicy(**settings)


def test_waits_are_drawn_below_a_bound_that_doubles():
    policy = RetryPolicy(initial_backoff_seconds=0.1, max_backoff_seconds=1)
    for failures, bound in ((1, 0.1), (2, 0.2), (4, 0.8), (5, 1), (10_000, 1)):
        waits = [policy.draw_backoff(failures) for _ in range(200)]
        assert 0 <= min(waits) < bound / 4
        assert bound * 3 / 4 < max(waits) <= bound


def test_a_client_needs_a_server():
    with pytest.raises(ValueError, match="no server was named"):
        SamplingClient([])


def _piece_response(piece, count):
    cursor = piece.cursor
    return _response(seed=7, first_index=cursor.next_index, image_count=count, packed_images=bytes(2 * count))


def test_a_server_that_ends_early_or_sends_too_much_is_refused():
    for count, ended in ((1, True), (3, False)):
        request = build_request(
            image_count=2, seed=7, model="", first_index=0, batch_size=0, include_probabilities=0
        )
        cursor = Cursor(request, Origin())
        with pytest.raises(SamplingError, match="another version") as caught:
            cursor.accept(_response(seed=7, first_index=0, image_count=count, packed_images=bytes(2 * count)), "x")
            cursor.check_complete("x")
        assert (caught.value.code, cursor.next_index) == (grpc.StatusCode.DATA_LOSS, 1 if ended else 0)


def test_few_pieces_are_out_however_slow_the_reader_and_a_left_one_comes_first():
    request = build_request(
        image_count=10**9, seed=7, model="", first_index=50, batch_size=0, include_probabilities=False
    )
    pieces = Pieces(request, server_count=2, revision=None)
    taken = []
    while pieces.has_free:
        taken.append(pieces.take())
        pieces.add(taken[-1], _piece_response(taken[-1], 100), "x")
    assert len(taken) == 5
    pieces.give_back(taken[3])
    pieces.give_back(taken[0])
    assert pieces.take() is taken[0]
    assert pieces.take() is taken[3]
    assert not pieces.has_free
    pieces.add(taken[0], _piece_response(taken[0], 512 - 100), "x")
    assert [pieces.pop().next_index for _ in range(2)] == [150, 562]
    assert pieces.has_free, "there is room for another"


@pytest.mark.parametrize(
    ("shape", "mode", "size"), [((5, 1, 4, 6), "L", (26, 14)), ((4, 3, 4, 4), "RGB", (14, 14))]
)
def test_a_grid_shows_every_image(shape, mode, size):
    images = np.ones(shape, np.uint8)
    grid = make_grid(images)
    assert (grid.mode, grid.size) == (mode, size)
    assert (np.asarray(grid) == 255).sum() == images.size


def test_other_channel_counts_lie_side_by_side():
    images = np.zeros((1, 2, 2, 2), np.uint8)
    images[0, 1] = 1
    pixels = np.asarray(make_grid(images))[2:4, 2:6]
    assert pixels.tolist() == [[0, 0, 255, 255]] * 2


def test_a_broken_stream_leaves_no_file(tmp_path):
    def broken():
        yield decode_batch(_response(), expected_index=10)
        raise SamplingError("gone", code=grpc.StatusCode.UNAVAILABLE, next_index=12)

    with pytest.raises(SamplingError):
        write_batches(broken(), tmp_path / "x.npy", image_count=4)
    assert list(tmp_path.iterdir()) == []


def test_files_hold_the_images(tmp_path):
    batch = decode_batch(_response(), expected_index=10)
    assert isinstance(batch, ImageBatch)
    for name in ("a.npy", "a.npz", "a.png"):
        write_batches([batch], tmp_path / name, image_count=2)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), batch.images)
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["packed_images"], batch.packed_images)
        assert tuple(file["image_shape"]) == (1, 3, 3)
        assert (int(file["seed"]), int(file["first_index"]), str(file["model"])) == (5, 10, "m")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (12, 7)
