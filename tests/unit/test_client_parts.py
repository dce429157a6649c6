import json

import grpc
import numpy as np
import pytest
from PIL import Image

from bgan.clients import ImageBatch, RetryPolicy, SamplingError, _messages
from bgan.clients._files import make_grid, write_batches
from bgan.clients._messages import build_request
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
