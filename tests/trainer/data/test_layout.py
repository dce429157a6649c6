"""Which axis of an array is taken for what, and that it is said wherever it could be meant otherwise."""

import h5py
import numpy as np
import pytest
import scipy.io

from bgan.trainer.common.errors import DataError
from bgan.trainer.config.images import ImageOptions
from bgan.trainer.data.readers.detect import open_images
from bgan.trainer.data.readers.layout import ImageLayout
from tests.kit.images import read_images

BITS = np.random.default_rng(0).random((20, 3, 6, 9)) < 0.3  # [N, C, H, W]
GREY = BITS[:, 0]
LABELS = np.arange(20) % 3


def notes(path, **options):
    with open_images(path, ImageOptions(**options)) as source:
        return " ".join(source.notes)


def test_channels_last_as_keras_has_them_are_taken_as_such(tmp_path):
    for name, bits in (("one", GREY[:, None]), ("three", BITS)):
        np.save(tmp_path / f"{name}.npy", bits.transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(read_images(tmp_path / f"{name}.npy", ImageOptions())[0], bits)
    assert notes(tmp_path / "one.npy") == (
        "the array of shape 20x6x9x1 is taken as --axes NHWC, 20 images of 1x6x9 (channels x rows x columns); "
        "if that is wrong, try --axes NCHW"
    )
    assert notes(tmp_path / "one.npy", axes="NHWC") == ""
    as_channels, _ = read_images(tmp_path / "one.npy", ImageOptions(axes="NCHW"))
    assert as_channels.shape == (20, 6, 9, 1)


@pytest.mark.parametrize(
    ("array", "labels", "bits"),
    [
        (GREY.transpose(1, 2, 0), LABELS, GREY[:, None]),
        (BITS.transpose(2, 3, 1, 0), LABELS[:, None], BITS),  # as SVHN is published
        (GREY[:, None].transpose(2, 3, 1, 0), LABELS[None], GREY[:, None]),
        (BITS.transpose(1, 2, 3, 0), np.eye(3)[LABELS], BITS),
        (
            GREY[:, :, :4].reshape(20, 24)[:, :16].T,
            LABELS[None],
            GREY[:, :, :4].reshape(20, 24)[:, :16].reshape(20, 1, 4, 4),
        ),
    ],
    ids=["HWN", "HWCN", "HW1N", "CHWN, one-hot", "PN"],
)
def test_labels_say_which_axis_is_the_images(tmp_path, array, labels, bits):
    np.savez(tmp_path / "a.npz", images=array, labels=labels)
    scipy.io.savemat(tmp_path / "a.mat", {"X": array, "y": labels * 1.0})
    with h5py.File(tmp_path / "7.3.mat", "w", userblock_size=512) as file:
        file["X"], file["y"] = array.T, labels.T * 1.0
    with (tmp_path / "7.3.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    for path in sorted(tmp_path.iterdir()):
        found, found_labels = read_images(path, ImageOptions())
        np.testing.assert_array_equal(found, bits)
        np.testing.assert_array_equal(found_labels, LABELS)
        assert "is taken as --axes" in notes(path)


@pytest.mark.parametrize(
    ("shape", "labels", "taken", "other"),
    [
        ((60, 24, 24), [], (60, 1, 24, 24), None),
        ((60, 24, 32), [], (60, 1, 24, 32), None),
        ((60, 24, 60), [(60,)], (60, 1, 24, 60), None),
        ((24, 24, 60), [], (24, 1, 24, 60), "HWN"),
        ((24, 32, 60), [], (24, 1, 32, 60), "HWN"),
        ((60, 4, 48, 84), [], (60, 4, 48, 84), None),
        ((60, 1, 128, 4), [], (60, 1, 128, 4), None),
        ((60, 2, 5, 1), [], (60, 2, 5, 1), "NHWC"),
        ((60, 96, 128, 8), [], (60, 96, 128, 8), "NHWC"),
        ((60, 96, 128, 2), [], (60, 2, 96, 128), "NCHW"),
        ((32, 32, 3, 500), [], (500, 3, 32, 32), "NCHW"),
        ((3, 32, 32, 500), [(500,)], (500, 3, 32, 32), "HWCN"),
        ((500, 3, 32, 32), [(500, 1)], (500, 3, 32, 32), None),
        ((400, 784), [(400, 10)], (400, 1, 28, 28), None),
        ((400, 784), [], (400, 1, 28, 28), "HWN"),
        ((401, 784), [], (401, 1, 28, 28), None),
        ((784, 401), [], (401, 1, 28, 28), ""),
        ((784, 10_000), [(1, 10_000)], (10_000, 1, 28, 28), "NHW"),
    ],
)
def test_what_is_taken_and_what_it_could_be(shape, labels, taken, other):
    layout = ImageLayout(shape, ImageOptions(), "a", labels=labels)
    step = (*shape[: layout.first], 1, *shape[layout.first + 1 :])
    assert (layout.count, *layout.images(np.zeros(step)).shape[1:]) == taken
    if other is None:
        assert layout.note is None
        return
    if other == "":
        assert layout.note.endswith("401 images of 1x28x28 (channels x rows x columns)")
        return
    assert f"try --axes {other}" in layout.note
    assert ImageLayout(shape, ImageOptions(axes=other), "a").note is None  # following it leads on


def test_columns_are_images_with_a_row_shape(tmp_path):
    np.save(tmp_path / "a.npy", GREY.reshape(20, 54).T)
    for options in ({"row_shape": "6x9"}, {"row_shape": "6x9", "axes": "HWN"}):
        np.testing.assert_array_equal(read_images(tmp_path / "a.npy", ImageOptions(**options))[0][:, 0], GREY)
    np.save(tmp_path / "a.npy", BITS.reshape(20, -1).T)
    np.testing.assert_array_equal(read_images(tmp_path / "a.npy", ImageOptions(row_shape="3x6x9"))[0], BITS)


@pytest.mark.parametrize(
    ("array", "advice", "followed"),
    [
        (GREY.reshape(20, 54), "--row-shape, as in 28x20", {"row_shape": "6x9"}),
        (BITS.reshape(5, 4, 3, 6, 9), "--axes, as in NHHWC", {"axes": "NNCHW"}),
    ],
)
def test_following_the_advice_about_axes_leads_on(tmp_path, array, advice, followed):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError) as caught:
        read_images(tmp_path / "a.npy", ImageOptions())
    assert advice in str(caught.value)
    assert read_images(tmp_path / "a.npy", ImageOptions(**followed))[0].shape[0] == 20
