"""Streams that are written to files."""

import dataclasses
import errno
import os
import re
import resource
import signal

import numpy as np
import pytest
from PIL import Image

from bgan.clients import ImageBatch
from bgan.clients._files import make_grid
from bgan.clients._messages import decode_batch
from bgan.clients._output.formats import FORMATS, OutputError, StreamPart
from bgan.clients._output.partial_file import check_output, open_partial
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


WANTED = {"first_index": 10, "count": 2, "labels": ()}
PART = StreamPart(model="m", revision="r", image_shape=(1, 3, 3), seed=5, first_index=10, count=2)


def written(batch, path, part=PART, wanted=WANTED):
    with open_partial(path, wanted) as partial:
        partial.begin(part)
        partial.append(batch)
        partial.finish(lambda: None)


def test_a_stream_that_breaks_before_its_first_image_leaves_no_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), open_partial(tmp_path / "x.npy", WANTED):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_kept_of_a_stream_that_breaks_is_resumed(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    first, second = (decode_batch(make_response(**each), expected_index=at, target="here") for at, each in HALVES)
    part = dataclasses.replace(PART, classes=("a", "b"))
    with pytest.raises(RuntimeError), open_partial(path, WANTED) as partial:
        partial.begin(part)
        partial.append(first)
        raise RuntimeError
    assert not path.exists()
    with open(f"{path}.partial", "ab") as file:
        file.write(b"what came after the record")
    with open_partial(path, WANTED | {"seed": 5}) as partial:
        assert (partial.rows, partial.part) == (1, part)
        partial.append(second)
        partial.finish(lambda: None)
    whole = decode_batch(make_response(labels=[1, 0]), expected_index=10, target="here")
    written(whole, tmp_path / f"y{suffix}", part)
    assert path.read_bytes() == (tmp_path / f"y{suffix}").read_bytes()
    assert not [left for left in tmp_path.iterdir() if "partial" in left.name or "tmp" in left.name]


HALVES = [
    (10, {"image_count": 1, "packed_images": bytes([0b10000000, 0b10000000]), "labels": [1]}),
    (11, {"first_index": 11, "image_count": 1, "packed_images": bytes([0b01010101, 0]), "labels": [0]}),
]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (
            {"seed": 6},
            "holds a part of other images (seed 5 -> 6); finish those first, or start over with --overwr",
        ),
        ({"count": 3, "model": "n"}, "(count 2 -> 3, model m -> n)"),
    ],
)
def test_other_images_are_not_resumed(tmp_path, batch, wanted, says):
    path = tmp_path / "x.npz"
    with open_partial(path, WANTED) as partial:
        partial.begin(PART)
        partial.append(batch)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match=re.escape(says)), open_partial(path, WANTED | wanted):
        pass
    assert sorted(tmp_path.iterdir()) == before
    with open_partial(path, WANTED | wanted, overwrite=True) as partial:
        assert (partial.rows, partial.part) == (0, None)


def test_a_file_that_lost_bytes_or_its_record_is_not_resumed(tmp_path, batch):
    path = tmp_path / "x.npy"
    with open_partial(path, WANTED) as partial:
        partial.begin(PART)
        partial.append(batch)
    os.truncate(f"{path}.partial", 3)
    with pytest.raises(OutputError, match="is shorter than its record says"), open_partial(path, WANTED):
        pass
    (tmp_path / "x.npy.partial.json").write_text("{}")
    with (
        pytest.raises(OutputError, match="no record of `bgan sample` says what it holds"),
        open_partial(path, WANTED),
    ):
        pass


def test_two_do_not_write_one_file(tmp_path):
    with (
        open_partial(tmp_path / "x.npy", WANTED),
        pytest.raises(OutputError, match="another process is writing"),
        open_partial(tmp_path / "x.npy", WANTED),
    ):
        pass


def test_more_pixels_than_a_picture_holds_are_refused():
    with pytest.raises(OutputError, match="too many for one picture"):
        FORMATS[".png"](dataclasses.replace(PART, image_shape=(1, 2**14, 2**14)))


def test_links_and_pipes_are_no_place_for_a_file_that_can_be_resumed(tmp_path):
    (tmp_path / "x.npy").symlink_to("y.npy")
    os.mkfifo(tmp_path / "p.npy")
    (tmp_path / "d.npy").mkdir()
    for name, says in (
        ("x", f"is a link; name what it leads to, {tmp_path}/y.npy"),
        ("p", "is no plain file"),
        ("d", "is a folder"),
    ):
        with pytest.raises(OutputError, match=says):
            check_output(tmp_path / f"{name}.npy", overwrite=True)


def test_a_write_that_fails_leaves_no_file(tmp_path, batch, processes):
    pid = os.fork()
    if pid == 0:  # in a process of its own, whose limit is not raised again
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        try:
            written(batch, tmp_path / "x.npz")
        except OSError as error:
            os._exit(0 if error.errno == errno.EFBIG else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert list(tmp_path.iterdir()) == []


def test_files_hold_the_images(tmp_path, batch):
    assert isinstance(batch, ImageBatch)
    for name in ("a.npy", "a.npz", "a.png"):
        written(batch, tmp_path / name)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), batch.images)
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["packed_images"], batch.packed_images)
        assert tuple(file["image_shape"]) == (1, 3, 3)
        assert (int(file["seed"]), int(file["first_index"]), str(file["model"])) == (5, 10, "m")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (12, 7)
