"""Files of images of every kind, good and bad, as bits."""

import gzip
import io
import os
import struct
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
import scipy.sparse
from PIL import Image

from bgan.trainer.common.errors import ConfigError, DataError
from bgan.trainer.config.images import ImageOptions
from tests.kit.images import read_images

BITS = np.random.default_rng(0).random((20, 1, 6, 9)) < 0.3
LABELS = np.arange(20) % 3


def read(path, **options):
    return read_images(path, ImageOptions(**options))


def png(pixels, mode=None, **options):
    content = io.BytesIO()
    Image.fromarray(pixels, mode).save(content, "PNG", **options) if mode else Image.fromarray(pixels).save(
        content, "PNG", **options
    )
    return content.getvalue()


def write_npy(folder):
    np.save(folder / "a.npy", BITS[:, 0])
    return folder / "a.npy", {}


def write_npy_in_columns(folder):
    np.save(folder / "a.npy", np.asfortranarray(BITS.astype(np.float32)))
    return folder / "a.npy", {}


def write_rows(folder):
    np.save(folder / "a.npy", BITS.reshape(20, 54))
    return folder / "a.npy", {"row_shape": "6x9"}


def write_npz(folder):
    np.savez_compressed(folder / "a.npz", images=BITS[:, 0] * 255.0, labels=LABELS, other=np.zeros(7))
    return folder / "a.npz", {}


def write_npz_by_key(folder):
    np.savez(folder / "a.npz", x_train=BITS, y_train=LABELS, x_test=BITS[:3])
    return folder / "a.npz", {"key": "x_train", "labels_key": "y_train"}


def write_sparse(folder):
    images = BITS.transpose(0, 2, 3, 1)
    np.savez_compressed(folder / "a.npz", shape=images.shape, nonzero=images.nonzero())
    return folder / "a.npz", {"axes": "NHWC"}


def write_packed(folder):
    packed = np.packbits(BITS.reshape(20, -1), axis=1)
    np.savez(folder / "a.npz", packed_images=packed, image_shape=BITS.shape[1:])
    return folder / "a.npz", {}


def idx(array, code):
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder):
    (folder / "train-images-idx3-ubyte").write_bytes(idx(BITS[:, 0].astype(np.uint8), 8))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(LABELS.astype(np.uint8), 8))
    return folder / "train-images-idx3-ubyte", {}


def write_idx_gz(folder):
    (folder / "images.idx.gz").write_bytes(gzip.compress(idx(BITS.astype(">i4"), 0x0C)))
    return folder / "images.idx.gz", {}


def write_folder(folder):
    for i, bits in enumerate(BITS[:, 0]):
        path = folder / "all" / f"class{LABELS[i]}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(bits).save(path)
    (folder / "all" / "README.txt").write_text("not an image")
    return folder, {}


def write_zip(folder):
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for i, bits in enumerate(BITS[:, 0]):
            archive.writestr(f"masks/{LABELS[i]}/{i:02}.png", png(bits * np.uint8(255)))
        archive.writestr("__MACOSX/masks/0/._00.png", b"litter")
    return folder / "a.zip", {}


def write_mat(folder):
    scipy.io.savemat(folder / "a.mat", {"X": BITS[:, 0].transpose(1, 2, 0), "Y": LABELS[None] * 1.0})
    return folder / "a.mat", {"axes": "HWN", "key": "X", "labels_key": "Y"}


def write_mat_73(folder):
    path = folder / "a.mat"
    with h5py.File(path, "w", userblock_size=512) as file:  # MATLAB's axes are turned round in HDF5
        file["X"] = BITS[:, 0].transpose(1, 2, 0).transpose().astype(np.float64)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    return path, {"axes": "HWN"}


def write_h5(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("group/images", data=BITS[:, 0].astype(np.uint8), compression="gzip")
        file["labels"] = LABELS
    return folder / "a.h5", {"key": "group/images"}


def write_parquet(folder):
    cells = [{"bytes": png(bits), "path": f"{i}.png"} for i, bits in enumerate(BITS[:, 0])]
    pq.write_table(pa.table({"image": cells, "label": LABELS}), folder / "a.parquet")
    return folder / "a.parquet", {}


LABELLED = (write_npz, write_npz_by_key, write_idx, write_folder, write_zip, write_mat, write_h5, write_parquet)
PLAIN = (write_npy, write_npy_in_columns, write_rows, write_sparse, write_packed, write_idx_gz, write_mat_73)


@pytest.mark.parametrize("write", LABELLED + PLAIN)
def test_every_kind_of_file_gives_the_same_bits(tmp_path, write):
    path, options = write(tmp_path)
    bits, labels = read(path, **options)
    assert bits.dtype == np.bool_
    assert bits.shape == (20, 1, 6, 9)
    if write in (write_folder, write_zip):  # they are in the order of their names, by class
        order = np.argsort(LABELS, kind="stable")
        np.testing.assert_array_equal(bits, BITS[order])
        np.testing.assert_array_equal(labels, LABELS[order])
        return
    np.testing.assert_array_equal(bits, BITS)
    assert (labels is not None) == (write in LABELLED)
    if labels is not None:
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(labels, LABELS)


def test_axes_of_a_pianoroll_are_joined_and_turned(tmp_path):
    rolls = np.random.default_rng(1).random((6, 4, 5, 8, 3)) < 0.2  # songs, bars, steps, pitches, tracks
    np.savez_compressed(tmp_path / "a.npz", shape=rolls.shape, nonzero=rolls.nonzero())
    bits, _ = read(tmp_path / "a.npz", axes="NHHWC")
    np.testing.assert_array_equal(bits, rolls.reshape(6, 20, 8, 3).transpose(0, 3, 1, 2))
    np.save(tmp_path / "a.npy", rolls)
    bits, _ = read(tmp_path / "a.npy", axes="NNHWC")
    np.testing.assert_array_equal(bits, rolls.reshape(24, 5, 8, 3).transpose(0, 3, 1, 2))


def test_many_chunks_are_one_set(tmp_path):
    bits = np.random.default_rng(2).random((90, 1, 300, 300)) < 0.01  # 4 MiB are 46 of them
    np.save(tmp_path / "a.npy", bits)
    np.savez(tmp_path / "a.npz", shape=bits.shape, nonzero=np.stack(bits.nonzero())[:, ::-1])
    for name in ("a.npy", "a.npz"):
        np.testing.assert_array_equal(read(tmp_path / name)[0], bits)


GREY = np.array([[0, 1, 127], [128, 254, 255]], np.uint8)


def _with_alpha():
    return np.dstack([np.full((2, 3), 200, np.uint8)] * 3 + [GREY])


def _palette():
    image = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8), "P")
    image.putpalette([0, 0, 0, 255, 0, 0, 255, 255, 255])
    return image


@pytest.mark.parametrize(
    ("image", "channels", "pixels"),
    [
        (Image.fromarray(GREY), "grey", [GREY]),
        (Image.fromarray(GREY > 127), "grey", [255 * (GREY > 127)]),
        (Image.fromarray(GREY.astype(np.uint16) * 257), "grey", [GREY.astype(np.uint16) * 257]),
        (_palette(), "grey", [[[0, 76, 255], [255, 76, 0]]]),
        (
            _palette(),
            "rgb",
            [[[0, 255, 255], [255, 255, 0]], [[0, 0, 255], [255, 0, 0]], [[0, 0, 255], [255, 0, 0]]],
        ),
        (Image.fromarray(_with_alpha()), "grey", [GREY * (200 / 255)]),
        (Image.fromarray(_with_alpha()), "alpha", [GREY]),
        (Image.fromarray(GREY), "alpha", [np.full((2, 3), 255)]),
        (Image.fromarray(np.dstack([GREY, np.full((2, 3), 255, np.uint8)])), "grey", [GREY]),
    ],
    ids=[
        "8 bits",
        "1 bit",
        "16 bits",
        "palette",
        "palette, rgb",
        "alpha",
        "alpha alone",
        "no alpha",
        "grey, alpha",
    ],
)
def test_what_becomes_of_a_png(image, channels, pixels):
    from bgan.trainer.data.readers.image_files import decode_image

    content = io.BytesIO()
    image.save(content, "PNG")
    np.testing.assert_allclose(decode_image(content.getvalue(), channels), pixels, atol=1)


def test_a_transparent_colour_of_a_palette_is_off():
    from bgan.trainer.data.readers.image_files import decode_image

    content = io.BytesIO()
    _palette().save(content, "PNG", transparency=2)
    np.testing.assert_array_equal(decode_image(content.getvalue(), "grey"), [[[0, 76, 0], [0, 76, 0]]])


def _moving():
    content = io.BytesIO()
    first, second = (Image.fromarray(GREY.T + np.uint8(i)) for i in range(2))
    first.save(content, "GIF", save_all=True, append_images=[second])
    return content.getvalue()


def _bomb():
    content = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: b"", "it is empty"),
        (lambda: b"no image", "it is no image"),
        (lambda: png(GREY)[:45], "truncated"),
        (_moving, "it has 2 frames; save them as files of their own"),
        (_bomb, "it has more pixels than Pillow considers safe"),
        (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is no image"),
    ],
    ids=["empty", "text", "truncated", "moving", "bomb", "eps"],
)
def test_bad_image_files_are_counted_and_named_and_can_be_skipped(tmp_path, make, reason):
    path, options = write_folder(tmp_path)
    (tmp_path / "all" / "class1" / "a.gif").write_bytes(make())
    with pytest.raises(DataError) as caught:
        read(path, **options)
    assert "1 of them cannot be used: all/class1/a.gif (" in str(caught.value)
    assert reason in str(caught.value)
    assert "leave them out with --skip-bad" in str(caught.value)
    assert "\n" not in str(caught.value)
    bits, labels = read(path, **options, skip_bad=True)
    assert len(bits) == len(labels) == 20


def test_images_of_several_shapes_are_brought_to_one(tmp_path):
    path, _ = write_folder(tmp_path)
    Image.fromarray(np.eye(12, 13) > 0).save(tmp_path / "all" / "class1" / "z.png")
    with pytest.raises(
        DataError, match=r"2 shapes: 1x6x9 \(20, the first .*00.png\), 1x12x13 \(1, the first .*z.png\)"
    ):
        read(path)
    bits, _ = read(path, size="12x13", fit="pad")
    assert bits.shape == (21, 1, 12, 13)
    with pytest.raises(DataError, match=r"z.png \(it is 12x13, too large to pad to 6x9\)"):
        read(path, size="6x9", fit="pad")
    assert read(path, size="6x9", fit="pad", skip_bad=True)[0].shape == (20, 1, 6, 9)


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a/../../x.png", "..\\x.png", "C:\\x.png"])
def test_a_path_that_leads_out_of_a_zip_is_refused(tmp_path, name):
    path, _ = write_zip(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, png(GREY))
    with pytest.raises(DataError, match="leads out of the archive"):
        read(path)


@pytest.mark.parametrize("name", ["bomb.png", "bomb.npy"])
def test_a_zip_bomb_is_refused(tmp_path, name):
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w") as entry,
    ):
        for _ in range(80):
            entry.write(bytes(2**20))
    with pytest.raises(DataError, match="it unpacks to 80 MiB, more than 500 times its size"):
        read(tmp_path / "a.zip")


def test_pickled_objects_are_refused(tmp_path):
    objects = np.array([BITS[0], "anything"], dtype=object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "a.npz", images=objects)
    np.savez(tmp_path / "b.npz", images=BITS, other=objects)
    for name, options in (
        ("a.npy", {}),
        ("a.npz", {}),
        ("b.npz", {"labels_key": "other"}),
        ("b.npz", {"key": "other"}),
    ):
        with pytest.raises(DataError, match="holds pickled Python objects, which could run any code"):
            read(tmp_path / name, **options)


def test_a_matlab_bomb_is_refused(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"X": np.zeros((65, 2**20), np.uint8)}, do_compression=True)
    with pytest.raises(DataError, match="unpacks to 65 MiB, more than 500 times its size"):
        read(tmp_path / "a.mat")


def test_other_bombs_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:  # nothing is written: all of it is the fill value
        file.create_dataset("images", shape=(10**6, 1000, 1000), chunks=(1, 1000, 1000), dtype=np.uint8)
    (tmp_path / "a.idx.gz").write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 10**6, 1000, 1000)))
    for name in ("a.h5", "a.idx.gz"):
        with pytest.raises(DataError, match="more than 500 times its size"):
            read(tmp_path / name)
    np.savez(tmp_path / "a.npz", shape=[10**6, 1000, 1000], nonzero=np.zeros((3, 10), int))
    with pytest.raises(DataError, match=r"less than 0\.1% of the values of its shape"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "write", [w for w in LABELLED + PLAIN if w not in (write_folder,)], ids=lambda write: write.__name__
)
def test_a_truncated_file_is_one_line(tmp_path, write):
    path, options = write(tmp_path)
    content = path.read_bytes()
    for kept in (0, 1, 9, len(content) // 2, len(content) - 40):
        path.write_bytes(content[:kept])
        with pytest.raises(DataError) as caught:
            read(path, **options)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "options", "says"),
    [
        (np.zeros((9, 6, 9)), {}, "every pixel is off as nonzero takes them"),
        (np.zeros((9, 6, 9)), {"invert": True}, "every pixel is on as nonzero, inverted, takes them"),
        (np.repeat(BITS[:1], 9, axis=0), {}, "all 9 images are the same"),
        (BITS[:1], {}, "has only one image to learn from"),
        (np.eye(40, 4000).reshape(40, 40, 100), {}, "only 0.025% of the pixels are on"),
        (np.eye(40, 4000).reshape(40, 40, 100), {"invert": True}, "99.975% of the pixels are on"),
        (np.where(BITS, 1, -1), {}, "--binarize threshold --threshold 0"),
        (np.where(BITS, np.nan, 1.0), {}, "image 0 (it holds NaN or infinite values)"),
        (BITS.astype(str), {}, "holds values of type"),
        (BITS.reshape(20, 54), {}, "holds an array of shape 20x54; images are [N, H, W] or [N, C, H, W]"),
        (BITS, {"key": "x"}, "key has no meaning for"),
        (BITS, {"row_shape": "5x5"}, "has rows of 9 values, which are not 5x5"),
        (BITS[:, 0, 0], {"row_shape": "3x3", "axes": "HNW"}, "which cannot be images too"),
        (BITS, {"axes": "NHW"}, "holds an array of shape 20x1x6x9"),
        (BITS * 3.0, {"binarize": "bernoulli"}, "bernoulli takes values as probabilities"),
        (BITS.astype(int), {"binarize": "threshold"}, "say which are on with --threshold"),
    ],
)
def test_data_that_is_no_good_to_train_on_is_one_line(tmp_path, array, options, says):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises((DataError, ConfigError)) as caught:
        read(tmp_path / "a.npy", **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_with_nan_can_be_skipped(tmp_path):
    pixels = BITS.astype(float)
    pixels[[3, 17], 0, 2, 2] = np.nan
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.arange(20))
    with pytest.raises(DataError, match=r"2 of them cannot be used: image 3 \(.*image 17 \("):
        read(tmp_path / "a.npz")
    bits, labels = read(tmp_path / "a.npz", skip_bad=True)
    np.testing.assert_array_equal(bits, np.delete(BITS, [3, 17], axis=0))
    assert len(labels) == 18


@pytest.mark.parametrize(
    ("arrays", "options", "says"),
    [
        ({"a": BITS, "b": BITS}, {}, "holds a 20x1x6x9, b 20x1x6x9; name the images with --key"),
        ({"a": BITS, "b": BITS}, {"key": "c"}, "holds no array 'c'"),
        (
            {"a": BITS, "t": np.zeros(3, int)},
            {"key": "a", "labels_key": "t"},
            "the labels in t: they are of shape 3, not one for each of the 20 images",
        ),
        ({"shape": [4, 6], "nonzero": [[1, 9], [2, 2]]}, {}, "indices beyond its shape"),
        ({"shape": [4, 6], "nonzero": [[1, 3]]}, {}, "not a row of indices for each axis"),
        (
            {"packed_images": np.zeros((4, 3), np.uint8), "image_shape": [1, 9, 9]},
            {},
            "do not fit its image_shape",
        ),
    ],
)
def test_an_npz_that_does_not_fit_together_is_one_line(tmp_path, arrays, options, says):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError) as caught:
        read(tmp_path / "a.npz", **options)
    assert says in str(caught.value)


def test_a_header_that_promises_more_than_there_is_takes_no_memory(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 999, 999)}
    )
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00"[:0] + header.getvalue() + bytes(100))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.write(tmp_path / "a.npy", "images.npy")
    (tmp_path / "a.idx").write_bytes(struct.pack(">HBB3I", 0, 8, 3, 2**31, 999, 999))
    (tmp_path / "a.idx.gz").write_bytes(gzip.compress((tmp_path / "a.idx").read_bytes()))
    for name in ("a.npy", "a.npz", "a.idx", "a.idx.gz"):
        with pytest.raises(DataError, match=r"cannot be read|is refused"):
            read(tmp_path / name)


def test_what_is_not_there_or_not_known_is_one_line(tmp_path):
    with pytest.raises(DataError, match="there is no file or folder"):
        read(tmp_path / "a.npy")
    (tmp_path / "a.txt").write_text("thesis")
    with pytest.raises(DataError, match=r"a\.txt is no file of images that bgan reads: \.npy, \.npz"):
        read(tmp_path / "a.txt")
    with pytest.raises(DataError, match="has no image files"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # nobody will ever write to it
    for path in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(DataError, match="is a pipe, socket or device; write what comes out of it to a file"):
            read(Path(path))


@pytest.mark.parametrize(
    ("array", "says"), [(np.array(3), "of shape one number"), (np.zeros((0, 8, 8)), "nothing in it")]
)
def test_an_array_without_images_is_one_line(tmp_path, array, says):
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", images=array)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError, match=says):
            read(tmp_path / name)


def test_links_in_an_h5_file_are_found_by_their_names(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["all/x"], file["all/y"], file["all/z"] = BITS[:, 0], LABELS, BITS[::-1, 0]
        file["images"], file["labels"] = h5py.SoftLink("/all/x"), h5py.SoftLink("/all/y")
        file["turned"], file["gone"] = file["all/z"], h5py.SoftLink("/nowhere")
    for options, bits in (({}, BITS), ({"key": "turned"}, BITS[::-1]), ({"key": "/all/z"}, BITS[::-1])):
        found, labels = read(tmp_path / "a.h5", **options)
        np.testing.assert_array_equal(found, bits)
        np.testing.assert_array_equal(labels, LABELS)
    with pytest.raises(DataError, match="holds no array 'gone'"):
        read(tmp_path / "a.h5", key="gone")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["images"] = h5py.ExternalLink("nowhere.h5", "/x")
    with pytest.raises(DataError, match="holds no arrays"):
        read(tmp_path / "b.h5")


def test_labels_of_idx_are_found_gzipped_or_not(tmp_path):
    images, labels = idx(BITS[:, 0].astype(np.uint8), 8), idx(LABELS.astype(np.uint8), 8)
    (tmp_path / "a-images-idx3-ubyte").write_bytes(images)
    (tmp_path / "a-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    (tmp_path / "b-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (tmp_path / "b-labels-idx1-ubyte").write_bytes(labels)
    for name in ("a-images-idx3-ubyte", "b-images-idx3-ubyte.gz"):
        np.testing.assert_array_equal(read(tmp_path / name)[1], LABELS)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"binarize": "dither"}, "choose one of nonzero, threshold, otsu, bernoulli"),
        ({"threshold": 3}, "threshold needs --binarize threshold"),
        ({"size": "28x28"}, "size and fit go together"),
        ({"size": "28", "fit": "pad"}, "size is '28'; write it as 28x28"),
        ({"size": "0x9", "fit": "pad"}, "size is '0x9'; write it as 28x28"),
        ({"axes": "NXY"}, "axes is 'NXY'"),
        ({"bernoulli_seed": -1}, "bernoulli-seed is -1"),
    ],
)
def test_wrong_options_are_one_line(options, says):
    with pytest.raises(ConfigError) as caught:
        ImageOptions(**options)
    assert says in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="names of drives")
def test_a_zip_of_something_else_is_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("thesis.txt", "precious")
    with pytest.raises(DataError, match="has no image files"):
        read(tmp_path / "a.zip")


def _turned(orientation):
    """What a viewer shows of an image that is stored with this EXIF orientation (TIFF 6.0, tag 274)."""
    stored = BITS[0, 0]
    shown = {
        1: stored,
        3: stored[::-1, ::-1],
        6: np.rot90(stored, -1),
        7: stored.T[::-1, ::-1],
        8: np.rot90(stored),
    }
    return shown[orientation]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7, 8])
def test_images_are_turned_as_their_exif_data_say(kind, orientation):
    from bgan.trainer.data.readers.image_files import decode_image

    exif = Image.Exif()
    exif[274] = orientation
    options = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}}.get(kind, {})
    content = io.BytesIO()
    Image.fromarray(255 * BITS[0, 0].astype(np.uint8)).save(content, kind, exif=exif, **options)
    for channels in ("grey", "rgb"):
        pixels = decode_image(content.getvalue(), channels)
        np.testing.assert_array_equal(pixels[0] > 127, _turned(orientation))


def test_damaged_exif_data_do_not_harm_the_image():
    from bgan.trainer.data.readers.image_files import decode_image

    content = png(GREY, exif=b"Exif\0\0XX*\0\x08\0\0\0")
    np.testing.assert_array_equal(decode_image(content, "grey"), [GREY])


def test_specks_of_jpeg_are_said_however_few_and_the_step_removes_them(tmp_path):
    ink = np.zeros((4, 256, 256), bool)
    for i in range(4):
        ink[i, 11 : 21 + i, 9:20] = True
        Image.fromarray(255 * ink[i].astype(np.uint8)).save(tmp_path / f"{i}.jpg", quality=90)
    from bgan.trainer.data.binary_images import BinaryImages
    from bgan.trainer.data.readers.detect import open_images

    for options, noisy in (({}, True), ({"binarize": "threshold"}, False), ({"binarize": "otsu"}, False)):
        with open_images(tmp_path, ImageOptions(**options)) as source:
            images = BinaryImages(source, ImageOptions(**options), tmp_path)
            bits = np.concatenate([bits for bits, _ in images.chunks()])
        assert (bits[:, 0] != ink).any() == noisy
        assert any("neither 0 nor 1 nor the greatest of their type" in note for note in images.notes) == noisy


@pytest.mark.parametrize(
    ("write", "options"),
    [
        (write_folder, {"key": "x"}),
        (write_folder, {"labels_key": "y"}),
        (write_zip, {"axes": "NHW"}),
        (write_zip, {"row_shape": "6x9"}),
        (write_parquet, {"axes": "NHW"}),
        (write_npy, {"channels": "alpha"}),
        (write_npy, {"labels_key": "y"}),
        (write_npz, {"channels": "rgb"}),
        (write_idx, {"key": "x"}),
        (write_h5, {"channels": "alpha"}),
        (write_mat, {"channels": "alpha"}),
    ],
)
def test_an_option_that_means_nothing_for_a_file_is_refused(tmp_path, write, options):
    path, own = write(tmp_path)
    (name,) = options
    with pytest.raises(ConfigError, match=f"^{name.replace('_', '-')} has no meaning for {path}: "):
        read(path, **(own | options))


@pytest.mark.parametrize(
    ("array", "options", "advice", "followed"),
    [
        (np.where(BITS, 2, 1), {}, "from 1 to 2: --binarize threshold --threshold 1.5 parts", {"threshold": 1.5}),
        (BITS.astype(np.uint8), {"binarize": "threshold"}, "--threshold 0.5 parts them", {"threshold": 0.5}),
        (np.where(BITS, 1, -1), {}, "--threshold 0 parts them", {"threshold": 0.0}),
        (BITS - 0.5 + 1e-3 * np.arange(9), {}, "--binarize threshold --threshold 0", {"threshold": 0.0}),
    ],
)
def test_following_the_advice_about_values_leads_on(tmp_path, array, options, advice, followed):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError) as caught:
        read(tmp_path / "a.npy", **options)
    assert advice in str(caught.value)
    np.testing.assert_array_equal(read(tmp_path / "a.npy", binarize="threshold", **followed)[0], BITS)


def test_following_the_advice_about_sizes_leads_on(tmp_path):
    path, _ = write_folder(tmp_path)
    Image.fromarray(np.eye(12, 13) > 0).save(tmp_path / "all" / "class1" / "z.png")
    with pytest.raises(DataError, match="bring them to one with --size and --fit, as in --size 6x9 --fit area"):
        read(path)
    assert len(read(path, size="6x9", fit="area")[0]) == 21


def test_lines_that_vanish_in_resizing_are_said_to_and_the_step_keeps_them(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(40, dtype=bool)[:, None] & np.ones((40, 40, 40), bool))
    with pytest.raises(DataError, match=r"every pixel is off .*; --fit max-pool keeps thin lines"):
        read(tmp_path / "a.npy", size="8x8", fit="area")
    assert len(read(tmp_path / "a.npy", size="8x8", fit="max-pool")[0]) == 40


def test_what_was_sampled_is_read_with_its_labels_and_the_names_of_its_classes(tmp_path):
    from bgan.trainer.data.readers.detect import open_images

    packed = np.packbits(BITS.reshape(20, -1), axis=1)
    origin = {"seed": np.array(1), "first_index": np.array(0), "model": np.array("m"), "revision": np.array("r")}
    classes = np.array(["star", "circle", "square"])
    arrays = {"packed_images": packed, "image_shape": BITS.shape[1:], "labels": LABELS, "classes": classes}
    np.savez(tmp_path / "a.npz", **arrays, **origin)
    bits, labels = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(bits, BITS)
    np.testing.assert_array_equal(labels, LABELS)
    with open_images(tmp_path / "a.npz", ImageOptions()) as source:
        assert source.classes == ("star", "circle", "square")


def test_arrays_that_are_not_needed_are_not_touched_but_named(tmp_path):
    from bgan.trainer.data.readers.detect import open_images

    np.savez(tmp_path / "a.npz", imgs=BITS, metadata=np.array({"author": "me"}, dtype=object), scale=np.array(2.0))
    np.testing.assert_array_equal(read(tmp_path / "a.npz")[0], BITS)
    np.testing.assert_array_equal(read(tmp_path / "a.npz", key="imgs")[0], BITS)
    with open_images(tmp_path / "a.npz", ImageOptions()) as source:
        assert source.notes == (
            "read as images: imgs; not used: metadata (not readable), scale one number (--key, --labels-key)",
        )


def test_a_mat_file_of_version_4_and_sparse_ones_are_read(tmp_path):
    scipy.io.savemat(tmp_path / "4.mat", {"X": BITS.reshape(20, 54) * 1.0}, format="4")
    scipy.io.savemat(tmp_path / "5.mat", {"X": scipy.sparse.csc_matrix(BITS.reshape(20, 54) * 1.0)})
    for name in ("4.mat", "5.mat"):
        np.testing.assert_array_equal(read(tmp_path / name, row_shape="6x9")[0], BITS)


def test_the_omniglot_of_burda_is_read_as_the_docs_say(tmp_path):
    content = {"testdata": np.zeros((54, 4)), "testtarget": np.zeros((3, 4)), "targetchar": np.zeros((1, 20))}
    content |= {"data": BITS[:, 0].transpose(2, 1, 0).reshape(54, 20)}
    scipy.io.savemat(tmp_path / "chardata.mat", content | {"target": np.eye(3)[LABELS].T})
    options = {"key": "data", "labels_key": "target", "row_shape": "9x6", "axes": "WHN"}
    bits, labels = read(tmp_path / "chardata.mat", **options)
    np.testing.assert_array_equal(bits, BITS)
    np.testing.assert_array_equal(labels, LABELS)


def test_cells_and_structs_of_matlab_are_named(tmp_path):
    cells = np.empty(20, object)
    cells[:] = list(BITS[:, 0])
    scipy.io.savemat(tmp_path / "a.mat", {"X": cells, "S": {"a": 1}})
    for key, says in (
        ("X", r"it is a cell array; in MATLAB join it, as in X = cat\(3, X{:}\)"),
        ("S", "a struct"),
    ):
        with pytest.raises(DataError, match=says):
            read(tmp_path / "a.mat", key=key)


def test_a_sparse_matrix_in_a_mat_of_version_73_is_named(tmp_path):
    path, options = write_mat_73(tmp_path)
    with h5py.File(path, "r+") as file:
        file.create_group("S").attrs["MATLAB_sparse"] = 20
        file["S/data"], file["S/ir"] = np.ones(9), np.arange(9)
    np.testing.assert_array_equal(read(path, **options)[0], BITS)
    with pytest.raises(DataError, match=r"it is sparse; in MATLAB save it as S = full\(S\)"):
        read(path, key="S")
