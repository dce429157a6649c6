"""Sets of images on disk: converted once, found again, and never half-made."""

import errno
import json
import os
import shutil
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from bgan.trainer.common.errors import DataError
from bgan.trainer.common.locks import file_lock
from bgan.trainer.config.images import DatasetSpec, ImageOptions, name_of
from bgan.trainer.data import binary_images, packed
from bgan.trainer.data.catalog import open_dataset
from bgan.trainer.data.dataset import BatchStream, BinaryDataset
from bgan.trainer.data.packed import packed_dataset
from tests.kit.limits import files_of_at_most

BITS = np.random.default_rng(0).random((50, 2, 5, 7)) < 0.3
LABELS = np.arange(50) % 3 + 4


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / "a.npz", images=BITS, labels=LABELS)
    return tmp_path / "a.npz"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def _folders(cache):
    return sorted(path.name for path in (cache / "images").iterdir())


def test_splits_are_every_seventh_image_and_the_rest(path, cache):
    packed = packed_dataset(path, ImageOptions(), cache=cache)
    train, test, whole = (packed.images(split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(whole)) == (43, 7, 50)
    assert whole.shape == (50, 2, 5, 7)
    np.testing.assert_array_equal(whole[torch.arange(50)].numpy(), BITS)
    np.testing.assert_array_equal(test[torch.arange(7)].numpy(), BITS[6::7])
    np.testing.assert_array_equal(train[torch.arange(43)].numpy(), np.delete(BITS, slice(6, None, 7), axis=0))
    mean = BinaryDataset("a", whole, None).mean_image()
    np.testing.assert_allclose(mean.numpy(), BITS.mean(axis=0), rtol=1e-6)


def test_labels_and_classes_belong_to_the_images(path, cache, monkeypatch):
    monkeypatch.setenv("BGAN_CACHE_DIR", str(cache))
    choice = DatasetSpec(dataset="a", path=str(path))
    train, test = (open_dataset(choice, split=split) for split in ("train", "test"))
    assert test.classes == ("4", "5", "6")
    assert test.labels.tolist() == (LABELS[6::7] - 4).tolist()
    assert train.labels.tolist() == np.delete(LABELS - 4, slice(6, None, 7)).tolist()
    assert train.image_shape == (2, 5, 7)
    some = train.in_memory(10)
    assert len(some) == len(some.labels) == 10
    np.testing.assert_array_equal(some.numpy(), train.numpy()[np.arange(10) * 43 // 10])


def test_batches_are_those_of_the_same_images_in_memory(path, cache):
    images = packed_dataset(path, ImageOptions(), cache=cache).images("train")
    dense = torch.from_numpy(np.delete(BITS, slice(6, None, 7), axis=0).astype(np.uint8))
    packed, whole = (BatchStream(source, batch_size=8, seed=5) for source in (images, dense))
    for index in (0, 3, 12, 2):
        batch = packed.batch(index)
        assert batch.dtype == torch.float32
        assert torch.equal(batch, whole.batch(index))


def test_a_set_is_converted_once_and_found_again(path, cache):
    heard = []
    first = packed_dataset(path, ImageOptions(), cache=cache, progress=lambda *done: heard.append(done))
    assert heard == [(50, 50)]
    again = packed_dataset(path, ImageOptions(), cache=cache, progress=lambda *done: heard.append(done))
    assert heard == [(50, 50)]
    assert again.digest == first.digest
    assert again.folder == first.folder
    other = packed_dataset(path, ImageOptions(invert=True), cache=cache)
    assert other.digest != first.digest
    assert len(_folders(cache)) == 2


@pytest.mark.parametrize("fit", ["pad", "area", "max-pool"])
def test_images_that_grow_are_made_a_few_at_a_time(path, cache, tmp_path, monkeypatch, fit):
    """Small images fill a chunk by the thousands, and would not fit into memory at a large size."""
    options, heard = ImageOptions(size="10x14", fit=fit), []
    whole = packed_dataset(path, options, cache=cache)
    monkeypatch.setattr(binary_images, "MAX_PIXELS", 20 * 10 * 14)
    parts = packed_dataset(path, options, cache=tmp_path / "parts", progress=lambda *done: heard.append(done))
    assert heard == [(20, 50), (40, 50), (50, 50)]
    assert parts.digest == whole.digest
    assert parts.labels.tolist() == (LABELS - 4).tolist()


@pytest.mark.usefixtures("processes")  # h5py asks for the machine
def test_changed_images_are_another_set_and_the_same_ones_in_another_file_are_not(path, cache, tmp_path):
    first = packed_dataset(path, ImageOptions(), cache=cache)
    with h5_file(tmp_path / "b.h5") as file:
        file["images"], file["labels"] = BITS, LABELS
    assert packed_dataset(tmp_path / "b.h5", ImageOptions(), cache=cache).digest == first.digest
    changed = BITS.copy()
    changed[3, 0, 0, 0] ^= True
    np.savez(path, images=changed, labels=LABELS)
    assert packed_dataset(path, ImageOptions(), cache=cache).digest != first.digest
    np.savez(path, images=BITS, labels=LABELS[::-1])
    assert packed_dataset(path, ImageOptions(), cache=cache).digest != first.digest


def h5_file(path):
    import h5py

    return h5py.File(path, "w")


@pytest.mark.parametrize("damage", ["images.bin", "labels.npy", "dataset.json", "a flipped bit"])
def test_a_damaged_set_is_converted_again(path, cache, damage):
    first = packed_dataset(path, ImageOptions(), cache=cache)
    if damage == "a flipped bit":
        content = bytearray((first.folder / "images.bin").read_bytes())
        content[100] ^= 4
        (first.folder / "images.bin").write_bytes(content)
    else:
        (first.folder / damage).write_bytes((first.folder / damage).read_bytes()[:-9])
    again = packed_dataset(path, ImageOptions(), cache=cache)
    np.testing.assert_array_equal(again.images("all")[torch.arange(50)].numpy(), BITS)
    assert _folders(cache) == [first.folder.name]


def test_what_is_kept_says_what_it_is(path, cache):
    folder = packed_dataset(path, ImageOptions(binarize="otsu"), cache=cache).folder
    about = json.loads((folder / "dataset.json").read_text())
    assert about["source"] == str(path)
    assert about["options"]["binarize"] == "otsu"
    assert (about["image_shape"], about["count"]) == ([2, 5, 7], 50)
    assert os.path.getsize(folder / "images.bin") == 50 * 9


def test_bad_data_leaves_nothing_behind(tmp_path, cache):
    np.save(tmp_path / "a.npy", np.zeros((9, 5, 5)))
    with pytest.raises(DataError, match="every pixel is off"):
        packed_dataset(tmp_path / "a.npy", ImageOptions(), cache=cache)
    assert _folders(cache) == []


def test_what_a_killed_process_left_is_removed_an_hour_later(path, cache):
    """Not sooner: which processes of another container or machine live is not known here."""
    for name, age in (("left", 3700), ("alive", 3500)):
        writing = cache / "images" / f".0123.{name}.tmp"
        writing.mkdir(parents=True)
        (writing / "images.bin").write_bytes(b"rows")
        for file in (writing / "images.bin", writing):
            os.utime(file, (time.time() - age,) * 2)
    folder = packed_dataset(path, ImageOptions(), cache=cache).folder
    assert _folders(cache) == [".0123.alive.tmp", folder.name]


@pytest.mark.parametrize("made", [False, True])
def test_one_that_comes_second_waits_and_converts_only_what_is_missing(path, cache, tmp_path, made):
    first = packed_dataset(path, ImageOptions(), cache=tmp_path / "first")
    (cache / "images").mkdir(parents=True)
    heard, waits = [], threading.Event()

    def progress(*done):
        heard.append(done)
        waits.set()

    with ThreadPoolExecutor(1) as pool:
        with file_lock(cache / "images" / f".{first.folder.name}.lock"):
            second = pool.submit(packed_dataset, path, ImageOptions(), cache=cache, progress=progress)
            assert waits.wait(60)
            if made:
                shutil.copytree(first.folder, cache / "images" / first.folder.name)
        assert second.result(60).digest == first.digest
    assert list(dict.fromkeys(heard)) == [(0, None), *([] if made else [(50, 50)])]
    assert _folders(cache) == [first.folder.name]


def test_one_that_stands_still_is_not_waited_for(path, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "_PATIENCE_SECONDS", 0.0)
    first = packed_dataset(path, ImageOptions(), cache=tmp_path / "first")
    (cache / "images").mkdir(parents=True)
    with file_lock(cache / "images" / f".{first.folder.name}.lock"):
        assert packed_dataset(path, ImageOptions(), cache=cache).digest == first.digest


@pytest.mark.parametrize("damaged", [False, True])
def test_without_locks_both_succeed(path, cache, monkeypatch, damaged):
    def without_locks(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", without_locks)
    others = []

    def progress(*done):
        if not others:
            others.append(None)
            others[0] = packed_dataset(path, ImageOptions(), cache=cache)
            if damaged:
                (others[0].folder / "dataset.json").unlink()

    found = packed_dataset(path, ImageOptions(), cache=cache, progress=progress)
    assert found.digest == others[0].digest
    np.testing.assert_array_equal(found.images("all")[torch.arange(50)].numpy(), BITS)
    assert _folders(cache) == [found.folder.name]


def test_folders_of_classes_need_not_be_utf8(tmp_path, cache):
    for index in range(8):
        folder = os.path.join(os.fsencode(tmp_path), b"glyphs", b"caf\xe9" if index % 2 else b"tea")
        os.makedirs(folder, exist_ok=True)
        Image.fromarray(BITS[index, 0].astype(np.uint8) * 255).save(os.fsdecode(folder) + f"/{index}.png")
    assert packed_dataset(tmp_path / "glyphs", ImageOptions(), cache=cache).classes == (r"caf\xe9", "tea")


def test_a_disk_that_fills_leaves_nothing_half_made(tmp_path, cache):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((3000, 28, 28)) < 0.3)
    with files_of_at_most(100_000), pytest.raises(DataError, match=r"^cannot write to") as caught:
        packed_dataset(tmp_path / "a.npy", ImageOptions(), cache=cache)
    assert "images.bin: File too large; nothing was kept. Make room" in str(caught.value)
    assert _folders(cache) == []


def test_options_of_a_set_of_one_file_go_into_its_fingerprint(tmp_path, cache):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, bits in (("x", BITS), ("y", ~BITS)):
            with archive.open(f"{name}.npy", "w") as file:
                np.save(file, bits)
    digests = {packed_dataset(tmp_path / "a.npz", ImageOptions(key=key), cache=cache).digest for key in "xy"}
    assert len(digests) == 2


def test_a_set_too_small_for_a_test_split_says_so(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("BGAN_CACHE_DIR", str(cache))
    np.save(tmp_path / "a.npy", BITS[:5])
    with pytest.raises(DataError, match="has 5 images, of which none is held out for tests"):
        open_dataset(DatasetSpec(dataset="a", path=str(tmp_path / "a.npy")), split="test")


def test_names_of_sets_are_names_of_models(tmp_path):
    (tmp_path / "my masks.v2").mkdir()
    assert name_of(tmp_path / "my masks.v2") == "my-masks.v2"
    assert name_of(tmp_path / "train-images.idx3.gz") == "train-images"
    assert name_of(tmp_path / "...") == "images"


@pytest.mark.parametrize("order", ["rows in columns", "images last", "columns before rows"])
def test_images_in_any_memory_order_are_the_same_set(tmp_path, cache, order):
    images = BITS[:, 0]
    np.save(tmp_path / "plain.npy", images)
    if order == "rows in columns":
        stored, options = np.asfortranarray(images.reshape(50, 35)), ImageOptions(row_shape="5x7")
    elif order == "images last":
        stored, options = np.ascontiguousarray(images.transpose(1, 2, 0)), ImageOptions(axes="HWN")
    else:
        stored, options = images.swapaxes(1, 2), ImageOptions(axes="NWH")
    np.save(tmp_path / "stored.npy", stored)
    wanted = packed_dataset(tmp_path / "plain.npy", ImageOptions(), cache=cache)
    assert packed_dataset(tmp_path / "stored.npy", options, cache=cache).digest == wanted.digest
