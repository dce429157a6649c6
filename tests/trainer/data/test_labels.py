"""Labels of every usual type and form, in every kind of file that holds arrays."""

import h5py
import numpy as np
import pytest
import scipy.io

from bgan.trainer.common.errors import DataError
from bgan.trainer.config.images import ImageOptions
from bgan.trainer.data.readers.detect import open_images
from bgan.trainer.data.readers.labels import NO_LABEL, class_labels, in_class_order
from tests.kit.images import read_images

BITS = np.random.default_rng(0).random((20, 6, 9)) < 0.3
LABELS = np.arange(20) % 3
WORDS = np.array(["cat", "dog", "eel"])


@pytest.mark.parametrize(
    ("stored", "names"),
    [
        (LABELS.astype(np.uint8), None),
        (LABELS.astype(np.float32), None),
        (LABELS == 1, None),
        (LABELS[:, None], None),
        (LABELS[None] * 1.0, None),
        (np.eye(3)[LABELS], None),
        (np.eye(3, dtype=bool)[LABELS].T, None),
        (WORDS[LABELS], ("cat", "dog", "eel")),
        (WORDS[LABELS].astype(np.bytes_), ("cat", "dog", "eel")),
        (WORDS[LABELS].astype(object)[:, None], ("cat", "dog", "eel")),
        (np.array(["10", "9", "2"])[LABELS], ("2", "9", "10")),
    ],
)
def test_labels_of_every_type_and_form_are_read(stored, names):
    labels, found = class_labels(stored, 20)
    assert labels.dtype == np.int64
    assert found == names
    wanted = {None: LABELS, ("2", "9", "10"): 2 - LABELS}.get(names, LABELS)
    np.testing.assert_array_equal(labels, LABELS == 1 if stored.dtype == bool and stored.ndim == 1 else wanted)


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (LABELS + 0.5, "they are fractions"),
        (np.full(20, 1e300), "they are fractions"),
        (np.full(20, np.inf), "they are fractions"),
        (np.full(20, 2**64 - 1, np.uint64), "beyond 64 bits"),
        (LABELS[:7], "not one for each of the 20 images"),
        (np.ones((20, 4)), "of shape 20x4, not one for each"),
        (LABELS * 1j, "neither whole numbers nor words"),
        (np.array([{}] * 20), "objects of type dict"),
    ],
)
def test_what_is_no_label_is_said(stored, reason):
    with pytest.raises(ValueError, match=reason):
        class_labels(stored, 20)


def test_missing_labels_are_known_as_such():
    for stored in (np.array([2.0, np.nan]), np.array(["b", None]), np.array(["b", ""])):
        assert (class_labels(stored, 2)[0] == NO_LABEL).tolist() == [False, True]


def test_classes_are_in_numeric_order_if_all_are_numbers():
    assert in_class_order(["10", "9", "-1", "9"]) == ["-1", "9", "10"]
    assert in_class_order(["10", "9", "b"]) == ["10", "9", "b"]


def _write_npz(path, labels):
    with path.open("wb") as file:
        np.savez(file, images=BITS, labels=labels)


def _write_mat(path, labels):
    scipy.io.savemat(path, {"images": BITS, "labels": labels})


def _write_cells(path, labels):
    scipy.io.savemat(path, {"images": BITS, "labels": labels.astype(object)[None]})


def _write_h5(path, labels):
    with h5py.File(path, "w") as file:
        file["images"] = BITS
        file.create_dataset("labels", data=labels.astype(object), dtype=h5py.string_dtype())


def _write_cells_of_73(path, labels):
    with h5py.File(path, "w", userblock_size=512) as file:
        file["images"] = BITS.T
        cells = file.create_dataset("labels", (20, 1), h5py.ref_dtype)
        cells.attrs["MATLAB_class"] = np.bytes_("cell")
        for i, word in enumerate(labels):
            cell = file.create_dataset(f"#refs#/{i}", data=np.array([[ord(letter)] for letter in word], np.uint16))
            cell.attrs["MATLAB_class"] = np.bytes_("char")
            cells[i, 0] = cell.ref
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")


@pytest.mark.parametrize("write", [_write_npz, _write_mat, _write_cells, _write_h5, _write_cells_of_73])
def test_words_are_class_names_in_every_file(tmp_path, write):
    path = tmp_path / "a.file"
    write(path, WORDS[LABELS])
    np.testing.assert_array_equal(read_images(path, ImageOptions())[1], LABELS)
    with open_images(path, ImageOptions()) as source:
        assert source.classes == ("cat", "dog", "eel")


def test_labels_that_are_of_no_use_are_left_out_with_the_reason_and_refused_where_they_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", images=BITS, labels=LABELS + 0.5, kinds=LABELS)
    with open_images(tmp_path / "a.npz", ImageOptions()) as source:
        assert (
            "the labels in labels are left out: they are fractions, such as those of a measurement" in source.notes
        )
    assert read_images(tmp_path / "a.npz", ImageOptions())[1] is None
    with pytest.raises(
        DataError, match=r"the labels in labels: they are fractions.*; name others with --labels-key"
    ):
        read_images(tmp_path / "a.npz", ImageOptions(labels_key="labels"))
    np.testing.assert_array_equal(read_images(tmp_path / "a.npz", ImageOptions(labels_key="kinds"))[1], LABELS)


def test_pickled_words_are_left_out_and_with_the_type_that_is_advised_they_are_read(tmp_path):
    words = WORDS[LABELS].astype(object)
    np.savez(tmp_path / "a.npz", images=BITS, labels=words)
    with open_images(tmp_path / "a.npz", ImageOptions()) as source:
        assert "the labels in labels are left out: it holds pickled Python objects" in source.notes[0]
        assert "save words with dtype=str" in source.notes[0]
    np.savez(tmp_path / "a.npz", images=BITS, labels=np.array(words, dtype=str))
    np.testing.assert_array_equal(read_images(tmp_path / "a.npz", ImageOptions())[1], LABELS)


def test_images_without_a_label_are_counted(tmp_path):
    np.savez(tmp_path / "a.npz", images=BITS, labels=np.where(np.arange(20) == 4, np.nan, LABELS))
    with pytest.raises(DataError, match=r"1 of them cannot be used: image 4 \(it has no label\)"):
        read_images(tmp_path / "a.npz", ImageOptions())
    bits, labels = read_images(tmp_path / "a.npz", ImageOptions(skip_bad=True))
    assert len(bits) == len(labels) == 19


def test_labels_of_another_length_beside_an_idx_file_are_left_out_with_the_reason(tmp_path):
    from tests.trainer.data.test_readers import idx

    (tmp_path / "a-images-idx3-ubyte").write_bytes(idx(BITS.astype(np.uint8), 8))
    (tmp_path / "a-labels-idx1-ubyte").write_bytes(idx(LABELS[:7].astype(np.uint8), 8))
    with open_images(tmp_path / "a-images-idx3-ubyte", ImageOptions()) as source:
        assert (
            "a-labels-idx1-ubyte are left out: they are of shape 7, not one for each of the 20" in source.notes[0]
        )
