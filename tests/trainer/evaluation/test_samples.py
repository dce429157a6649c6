import numpy as np
import pytest

from bgan.trainer.common.errors import SamplesError
from bgan.trainer.evaluation.samples import load_samples

SHAPE = (1, 5, 6)
IMAGES = (np.random.default_rng(0).random((9, *SHAPE)) < 0.5).astype(np.uint8)
PACKED = np.packbits(IMAGES.reshape(9, -1), axis=1)


@pytest.mark.parametrize(
    "array",
    [
        IMAGES,
        IMAGES.astype(bool),
        IMAGES.astype(np.float32),
        IMAGES * 255,
        IMAGES[:, 0],
        IMAGES.reshape(9, -1).astype(np.int64),
        PACKED,
    ],
    ids=["uint8", "bool", "float", "255", "no-channel", "flat", "packed"],
)
def test_every_layout_is_read_as_the_same_images(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", anything=array)
    np.savez_compressed(tmp_path / "b.npz", images=array, shape=SHAPE, other=np.array([{}], dtype=object))
    np.savez(tmp_path / "c.npz", packed_images=PACKED, image_shape=SHAPE, seed=1, model="as bgan sample writes it")
    for name in ("a.npy", "a.npz", "b.npz", "c.npz"):
        samples = load_samples(tmp_path / name, SHAPE)
        assert samples.images.dtype == np.uint8
        np.testing.assert_array_equal(samples.images, IMAGES)
        assert samples.probabilities is None


def test_probabilities_come_along(tmp_path):
    probabilities = np.random.default_rng(1).random((9, 30))
    np.savez(tmp_path / "a.npz", images=PACKED, probabilities=probabilities)
    samples = load_samples(tmp_path / "a.npz", SHAPE)
    assert samples.probabilities.dtype == np.float32
    np.testing.assert_allclose(samples.probabilities, probabilities.reshape(9, *SHAPE), rtol=1e-6)


def test_labels_come_along_with_the_names_of_their_classes(tmp_path):
    labels, names = np.arange(9) % 2, ("cluster 0", "cluster 1")
    np.savez(tmp_path / "a.npz", packed_images=PACKED, image_shape=SHAPE, labels=labels, classes=np.array(names))
    samples = load_samples(tmp_path / "a.npz", SHAPE).first(5)
    np.testing.assert_array_equal(samples.labels, labels[:5])
    assert samples.classes == names


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (IMAGES * 0.5, "values other than 0 and 1 .* such as 0.5; binarize the samples first"),
        (IMAGES + IMAGES * np.arange(9, dtype=np.uint8).reshape(9, 1, 1, 1), "values other than 0 and 1"),
        (np.where(IMAGES == 1, np.nan, 0), "holds NaN or infinite values"),
        (np.zeros((9, 1, 6, 5)), "an array of shape 9x1x6x5; images of 1x5x6 are"),
        (np.zeros((9, 5), np.uint8), r"packed uint8 \[N, 4\]"),
        (np.zeros(30), "an array of shape 30"),
        (np.array([["a"] * 30]), "values of type <U1"),
        (IMAGES.astype(np.complex64), "values of type complex64"),
    ],
)
def test_what_is_not_binary_images_is_refused(tmp_path, array, says):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(SamplesError, match=says):
        load_samples(tmp_path / "a.npy", SHAPE)


def test_files_that_cannot_be_read(tmp_path):
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    truncated = tmp_path / "truncated.npz"
    np.savez(truncated, images=IMAGES)
    truncated.write_bytes(truncated.read_bytes()[:200])
    empty = tmp_path / "empty.npy"
    empty.write_bytes(b"")
    for path in (objects, truncated, empty):
        with pytest.raises(SamplesError, match="is not an array file that can be read safely"):
            load_samples(path, SHAPE)
    with pytest.raises(SamplesError, match="cannot be read"):
        load_samples(tmp_path / "none.npy", SHAPE)
    np.savez(tmp_path / "two.npz", a=IMAGES, b=IMAGES)
    with pytest.raises(SamplesError, match="holds a, b; name the samples images"):
        load_samples(tmp_path / "two.npz", SHAPE)


def test_another_shape_and_probabilities_that_do_not_fit(tmp_path):
    np.savez(tmp_path / "a.npz", images=PACKED, shape=(1, 6, 5))
    with pytest.raises(SamplesError, match="images of shape 1x6x5, but those of the data set are 1x5x6"):
        load_samples(tmp_path / "a.npz", SHAPE)
    for probabilities, says in ((np.zeros((8, 30)), "must fit"), (np.full((9, 30), 1.5), "between 0 and 1")):
        np.savez(tmp_path / "b.npz", images=PACKED, probabilities=probabilities)
        with pytest.raises(SamplesError, match=says):
            load_samples(tmp_path / "b.npz", SHAPE)
