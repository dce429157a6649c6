"""Streams that are written to files."""

import errno
import os
import resource
import signal

import grpc
import numpy as np
import pytest
from PIL import Image

from bgan.clients import ImageBatch, SamplingError
from bgan.clients._files import make_grid, output_problem, write_batches
from bgan.clients._messages import decode_batch
from tests.clients.responses import make_response


@pytest.fixture
def batch():
    return decode_batch(make_response(), expected_index=10, target="here")


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


def test_a_broken_stream_leaves_no_file(tmp_path, batch):
    def broken():
        yield batch
        raise SamplingError("gone", code=grpc.StatusCode.UNAVAILABLE, next_index=12)

    with pytest.raises(SamplingError):
        write_batches(broken(), tmp_path / "x.npy", image_count=4)
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_itself_is_no_place_for_a_file(tmp_path):
    (tmp_path / "x.npy").symlink_to("x.npy")
    assert output_problem(tmp_path / "x.npy") == "is a link that leads in a circle"


def test_a_write_that_fails_names_the_file_and_leaves_none(tmp_path, batch, processes):
    pid = os.fork()
    if pid == 0:  # in a process of its own, whose limit is not raised again
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        try:
            write_batches([batch], tmp_path / "x.npz", image_count=2)
        except OSError as error:
            os._exit(0 if error.filename == str(tmp_path / "x.npz") and error.errno == errno.EFBIG else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert list(tmp_path.iterdir()) == []


def test_files_hold_the_images(tmp_path, batch):
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
