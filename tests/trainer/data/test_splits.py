"""What is held out: images by their digests, files of their own, and groups that belong together."""

import hashlib

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from bgan.trainer.common.errors import ConfigError, DataError
from bgan.trainer.config.images import DatasetSpec, ImageOptions
from bgan.trainer.config.training import TrainingConfig, differences
from bgan.trainer.data.catalog import open_dataset
from bgan.trainer.data.groups import note_on_neighbours

BITS = np.random.default_rng(0).random((56, 4, 6)) < 0.4
SONGS = np.repeat(np.arange(14), 4)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BGAN_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / "a.npz", images=BITS, labels=np.arange(56) % 3 + 4, song=SONGS)
    return tmp_path / "a.npz"


def _spec(path, **given):
    options = ImageOptions(**{name: given.pop(name) for name in ("group_by",) if name in given})
    return DatasetSpec(dataset="a", path=str(path), options=options, **given)


def _keys(dataset):
    return {image.tobytes() for image in dataset.numpy()}


def _digest(image):
    return hashlib.sha256(np.packbits(image).tobytes()).digest()


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_validation_images_are_those_of_the_least_digests(tmp_path, order):
    np.savez(tmp_path / "a.npz", images=BITS[order])
    spec = _spec(tmp_path / "a.npz", validation_images=9)
    train, validation, test = (open_dataset(spec, split=split) for split in ("train", "validation", "test"))
    without = open_dataset(_spec(tmp_path / "a.npz"))
    assert _keys(train) | _keys(validation) == _keys(without)
    assert (len(train), len(validation), len(test)) == (39, 9, 8)
    digests = sorted(_digest(image) for image in without.numpy())
    assert sorted(_digest(image) for image in validation.numpy()) == digests[:9]


def test_a_data_set_by_name_has_a_validation_split_too():
    spec = DatasetSpec(dataset="digits", validation_images=200)
    train, validation = (open_dataset(spec, split=split) for split in ("train", "validation"))
    assert (len(train), len(train.labels)) == (1340, 1340)
    assert (len(validation), len(validation.labels)) == (200, 200)
    whole = open_dataset(DatasetSpec(dataset="digits"))
    is_validation = [image.tobytes() in _keys(validation) for image in whole.numpy()]
    assert torch.equal(validation.labels, whole.labels[torch.tensor(is_validation)])


@pytest.mark.parametrize(
    ("given", "split", "said"),
    [
        ({"validation_images": 48}, "train", "validation-images is 48, but a has only 48 images to train on"),
        ({}, "validation", "are held out; see --validation-images and --validation-data"),
        ({"group_by": "nothing"}, "train", "holds no array 'nothing'; it holds images"),
        ({"group_by": "labels", "validation_images": 1}, "test", None),
    ],
)
def test_what_cannot_be_held_out(path, given, split, said):
    if said is None:
        assert len(set(open_dataset(_spec(path, **given), split=split).labels.tolist())) == 1
        return
    with pytest.raises((DataError, ConfigError), match=said):
        open_dataset(_spec(path, **given), split=split)


def test_one_group_cannot_be_split(tmp_path):
    np.savez(tmp_path / "a.npz", images=BITS, song=np.zeros(56, int))
    with pytest.raises(DataError, match="are of one group; --group-by needs two at least"):
        open_dataset(_spec(tmp_path / "a.npz", group_by="song"))
    np.savez(tmp_path / "a.npz", images=BITS, song=np.where(SONGS == 3, np.nan, SONGS))
    with pytest.raises(DataError, match=r"the groups in song: 4 images have none; see --group-by"):
        open_dataset(_spec(tmp_path / "a.npz", group_by="song"))


def _as_npz(folder):
    np.savez(folder / "a.npz", images=BITS, name=np.array([f"song {song}" for song in SONGS]))
    return folder / "a.npz", "name"


def _as_sampled_npz(folder):
    packed = np.packbits(BITS.reshape(56, -1), axis=1)
    np.savez(folder / "a.npz", packed_images=packed, image_shape=np.array([1, 4, 6]), song=SONGS)
    return folder / "a.npz", "song"


def _as_h5(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file["images"], file["song"] = BITS, SONGS
    return folder / "a.h5", "song"


def _as_folders(folder):
    return _as_files(folder, "song {}/{}.png"), "folder"


def _as_names(folder):
    return _as_files(folder, "song{}-{}.png"), r"song(\d+)"


def _as_parquet(folder):
    path, _ = _as_names(folder)
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in sorted(path.iterdir())]
    pq.write_table(
        pa.table({"image": cells, "song": [c["path"].split("-")[0] for c in cells]}), folder / "a.parquet"
    )
    return folder / "a.parquet", "song"


def _as_files(folder, pattern):
    for number, (image, song) in enumerate(zip(BITS, SONGS, strict=True)):
        file = folder / "images" / pattern.format(song, number)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return folder / "images"


@pytest.mark.parametrize(
    "write",
    [_as_npz, _as_sampled_npz, _as_h5, _as_folders, _as_names, _as_parquet],
    ids=lambda each: each.__name__,
)
def test_a_group_lies_on_one_side(tmp_path, write):
    path, group_by = write(tmp_path)
    songs = {image.tobytes(): song for image, song in zip(BITS.astype(np.uint8), SONGS, strict=True)}
    spec = _spec(path, group_by=group_by, validation_images=10)
    parts = [open_dataset(spec, split=split) for split in ("train", "validation", "test")]
    found = [{songs[key] for key in _keys(part)} for part in parts]
    assert [len(part) for part in parts] == [40, 8, 8]
    assert sum(map(len, found)) == len(set.union(*found)) == 14


@pytest.mark.parametrize(
    ("group_by", "said"),
    [("song(", "no regular|neither folder nor"), ("bar", "group-by 'bar' is not in the name")],
)
def test_names_without_a_group(tmp_path, group_by, said):
    path, _ = _as_names(tmp_path)
    with pytest.raises((ConfigError, DataError), match=said):
        open_dataset(_spec(path, group_by=group_by))


def test_files_for_validation_and_for_tests(path, tmp_path):
    np.savez(tmp_path / "v.npz", images=BITS[:5], labels=np.array([5, 5, 6, 6, 5]))
    np.save(tmp_path / "t.npy", BITS[:7])
    spec = _spec(path, validation_data=str(tmp_path / "v.npz"), test_data=str(tmp_path / "t.npy"))
    train, validation, test = (open_dataset(spec, split=split) for split in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (56, 5, 7)
    assert validation.labels.tolist() == [1, 1, 2, 2, 1]  # as the training images number 4, 5 and 6
    assert validation.classes == train.classes == ("4", "5", "6")
    assert test.labels is None
    assert {validation.name, test.name} == {"a"}


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (BITS[:5], np.full(5, 9), "v.npz has the class 9, which .*a.npz has not"),
        (BITS[:5, :, :5], np.full(5, 4), "v.npz has images of 1x4x5, .*a.npz of 1x4x6; see --size"),
    ],
)
def test_files_that_do_not_fit_the_training_images(path, tmp_path, images, labels, said):
    np.savez(tmp_path / "v.npz", images=images, labels=labels)
    with pytest.raises(DataError, match=said):
        open_dataset(_spec(path, validation_data=str(tmp_path / "v.npz")), split="validation")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data": "a", "validation_data": "b", "validation_images": 3}, "either validation-data or validation-im"),
        ({"dataset": "mnist", "test_data": "b"}, "test-data goes with --data, not with the data set mnist"),
        ({"data": "a", "test_data": "b", "training_split": "all"}, "leave out test-data"),
        ({"validation_images": 3, "training_split": "all"}, "leave out validation-images"),
    ],
)
def test_settings_that_contradict_each_other(settings, said):
    with pytest.raises(ConfigError, match=said):
        TrainingConfig.resolve(**settings)


def test_files_that_moved_are_no_other_settings():
    here, there, none = (TrainingConfig.resolve(data="a", test_data=path) for path in ("b", "c", None))
    assert differences(here, there) == {}
    assert differences(here, none) == {"test_data": ("b", None)}


def test_neighbours_that_are_alike_are_noted(path, tmp_path):
    frames = np.repeat(BITS, 5, axis=0) ^ (np.random.default_rng(1).random((280, 4, 6)) < 0.02)
    np.savez(tmp_path / "f.npz", images=frames, film=np.arange(280) // 5)
    (note,) = open_dataset(_spec(tmp_path / "f.npz"), split="all").notes[-1:]
    assert "every seventh is no fair test; --group-by or --test-data" in note
    for spec in (_spec(tmp_path / "f.npz", group_by="film"), _spec(path)):
        assert not any("side by side" in note for note in open_dataset(spec, split="train").notes)


def test_images_in_the_order_of_their_classes_are_not_frames():
    """Those of one class are alike, wherever they lie."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 100)
    rows = np.packbits((random.random((5, 64)) < 0.5)[labels] ^ (random.random((500, 64)) < 0.1), axis=1)
    assert note_on_neighbours(rows, labels) is None
    assert note_on_neighbours(rows, None) is not None
