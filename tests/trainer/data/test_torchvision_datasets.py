"""Published sets, from small files in torchvision's layout."""

import dataclasses
import hashlib
import socket
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from bgan.trainer.common.errors import ConfigError, DataError
from bgan.trainer.config.images import DatasetSpec, ImageOptions
from bgan.trainer.config.training import DATASETS, TrainingConfig
from bgan.trainer.data.catalog import known_image_shape, load_dataset
from bgan.trainer.data.summary import summarize
from bgan.trainer.data.torchvision_datasets import TORCHVISION_DATASETS

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)
LABELS = np.arange(12) % 5 + 1
SPLITS = ("train", "test")


def idx(array):
    code = {"u1": 8, "i4": 0x0C}[array.dtype.str[1:]]
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder, names, labels=None):
    labels = LABELS.astype(np.uint8) if labels is None else labels
    folder.mkdir(parents=True)
    for name, array in zip(names, (PIXELS, labels) * 2, strict=True):
        (folder / name).write_bytes(idx(array))


def files(pattern, parts, labels="labels-idx1-ubyte"):
    return [f"{pattern.format(part)}-{kind}" for part in parts for kind in ("images-idx3-ubyte", labels)]


def test_every_published_set_has_a_name():
    assert set(TORCHVISION_DATASETS) | {"auto", "digits"} == set(DATASETS)


def test_fashion_mnist_is_parted_at_a_threshold(tmp_path):
    write_idx(tmp_path / "FashionMNIST/raw", files("{}", ("train", "t10k")))
    dataset = load_dataset("fashion-mnist", data_dir=str(tmp_path))
    np.testing.assert_array_equal(dataset.numpy()[:, 0], PIXELS > 127)
    np.testing.assert_array_equal(dataset.labels, LABELS)
    options = ImageOptions(binarize="nonzero", invert=True)
    dataset = load_dataset("fashion-mnist", data_dir=str(tmp_path), options=options)
    np.testing.assert_array_equal(dataset.numpy()[:, 0], PIXELS == 0)


def test_kmnist(tmp_path):
    write_idx(tmp_path / "KMNIST/raw", files("{}", ("train", "t10k")))
    options = ImageOptions(size="14x14", fit="max-pool", binarize="threshold", threshold=250)
    dataset = load_dataset("kmnist", data_dir=str(tmp_path), split="test", options=options)
    blocks = PIXELS.reshape(12, 14, 2, 14, 2)
    np.testing.assert_array_equal(dataset.numpy()[:, 0], (blocks > 250).any(axis=(2, 4)))


@pytest.mark.parametrize(("name", "first_label"), [("letters", 1), ("balanced", 0)])
def test_emnist_is_turned_upright_and_its_letters_are_numbered_from_0(tmp_path, name, first_label):
    write_idx(tmp_path / "EMNIST/raw", files(f"emnist-{name}-{{}}", ("train", "test")))
    dataset = load_dataset(f"emnist-{name}", data_dir=str(tmp_path), split="all")
    assert len(dataset) == 24
    np.testing.assert_array_equal(dataset.numpy()[:12, 0], PIXELS.transpose(0, 2, 1) > 0)
    np.testing.assert_array_equal(dataset.labels[:12], LABELS - first_label)


def test_qmnist_has_more_in_its_labels_than_the_class(tmp_path):
    labels = np.zeros((12, 8), ">i4")
    labels[:, 0], labels[:, 1] = LABELS, 77
    write_idx(tmp_path / "QMNIST/raw", files("qmnist-{}", ("train", "test"), "labels-idx2-int"), labels)
    dataset = load_dataset("qmnist", data_dir=str(tmp_path))
    np.testing.assert_array_equal(dataset.labels, LABELS)
    np.testing.assert_array_equal(dataset.numpy()[:, 0], PIXELS > 0)


def test_stacked_mnist_has_three_digits_as_channels(tmp_path, monkeypatch):
    write_idx(tmp_path / "MNIST/raw", files("{}", ("train", "t10k")), (np.arange(12) % 10).astype(np.uint8))
    source = dataclasses.replace(TORCHVISION_DATASETS["stacked-mnist"], counts={})
    monkeypatch.setitem(TORCHVISION_DATASETS, "stacked-mnist", source)
    dataset = load_dataset("stacked-mnist", data_dir=str(tmp_path))
    assert dataset.image_shape == known_image_shape(DatasetSpec(dataset="stacked-mnist")) == (3, 28, 28)
    assert dataset.classes[7] == "007"
    assert len(dataset.classes) == 1000
    orders = [np.arange(12), [3, 5, 2, 9, 7, 10, 0, 8, 6, 11, 1, 4], [10, 11, 1, 4, 0, 6, 3, 5, 2, 7, 8, 9]]
    np.testing.assert_array_equal(dataset.numpy(), np.stack([PIXELS[order] for order in orders], axis=1) > 0)
    digits = [np.arange(12)[order] % 10 for order in orders]
    np.testing.assert_array_equal(dataset.labels, 100 * digits[0] + 10 * digits[1] + digits[2])
    assert summarize(dataset).classes["999"] == 0


def write_omniglot(folder, drawings):
    """Drawings of 2 characters in one half and of another in the other; their ink by path."""
    random = np.random.default_rng(1)
    ink = {}
    for character in ("images_background/A/c1", "images_background/A/c2", "images_evaluation/B/c1"):
        for i in range(drawings):
            path = folder / "omniglot-py" / character / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            ink[f"{character}/{i}.png"] = random.random((105, 105)) < 0.02
            Image.fromarray(~ink[f"{character}/{i}.png"]).save(path)
    return ink


def test_omniglot_has_15_of_20_drawings_of_every_character_for_training(tmp_path):
    ink = write_omniglot(tmp_path, 20)
    options = ImageOptions(size="105x105", fit="pad")
    train, test = (load_dataset("omniglot", data_dir=str(tmp_path), split=x, options=options) for x in SPLITS)
    assert torch.bincount(train.labels).tolist() == [15, 15, 15]
    assert torch.bincount(test.labels).tolist() == [5, 5, 5]
    for label, character in enumerate(
        ("images_background/A/c1", "images_background/A/c2", "images_evaluation/B/c1")
    ):
        names = sorted(
            (f"{character}/{i}.png" for i in range(20)), key=lambda name: hashlib.sha256(name.encode()).hexdigest()
        )
        for part, chosen in ((train, names[:15]), (test, names[15:])):
            own = part.numpy()[part.labels.numpy() == label, 0]
            np.testing.assert_array_equal(own, [ink[name] for name in sorted(chosen)])


def test_omniglot_is_28x28_with_its_thin_strokes_and_labels_do_not_collide(tmp_path):
    write_omniglot(tmp_path, 4)
    dataset = load_dataset("omniglot", data_dir=str(tmp_path), split="all")
    assert dataset.image_shape == known_image_shape(DatasetSpec(dataset="omniglot")) == (1, 28, 28)
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 1, 2]
    options = ImageOptions(size="28x28", fit="max-pool")
    by_max = load_dataset("omniglot", data_dir=str(tmp_path), split="all", options=options)
    np.testing.assert_array_equal(dataset.numpy(), by_max.numpy())
    options = ImageOptions(size="35x35", fit="max-pool")
    small, whole = (
        load_dataset("omniglot", data_dir=str(tmp_path), options=own).numpy()
        for own in (options, ImageOptions(size="105x105", fit="pad"))
    )
    np.testing.assert_array_equal(small, whole.reshape(9, 1, 35, 3, 35, 3).max(axis=(3, 5)))


def _no_network(*arguments, **options):
    raise socket.gaierror(-2, "Name or service not known")


@pytest.mark.parametrize("name", sorted(set(TORCHVISION_DATASETS) - {"mnist"}))
def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch, name):
    monkeypatch.setattr(socket, "getaddrinfo", _no_network)
    with pytest.raises(DataError) as caught:
        load_dataset(name, data_dir=str(tmp_path))
    assert f"is not in {tmp_path} and could not be downloaded (" in str(caught.value)
    assert "--data-dir or BGAN_DATA_DIR" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_one_line(tmp_path):
    write_idx(tmp_path / "KMNIST/raw", files("{}", ("train", "t10k")))
    (tmp_path / "KMNIST/raw/train-images-idx3-ubyte").write_bytes(b"no idx file")
    with pytest.raises(DataError) as caught:
        load_dataset("kmnist", data_dir=str(tmp_path))
    assert f"KMNIST in {tmp_path} cannot be read" in str(caught.value)
    assert f"delete {tmp_path / 'KMNIST'}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_that_leave_nothing_to_learn_are_one_line(tmp_path):
    write_idx(tmp_path / "KMNIST/raw", files("{}", ("train", "t10k")))
    options = ImageOptions(binarize="threshold", threshold=255)
    with pytest.raises(DataError, match="kmnist: every pixel is off as threshold takes them"):
        load_dataset("kmnist", data_dir=str(tmp_path), options=options)
    with pytest.raises(ConfigError, match="axes goes with --data, not with the data set kmnist"):
        load_dataset("kmnist", data_dir=str(tmp_path), options=ImageOptions(axes="NHW"))


def test_digits_can_be_read_in_other_ways():
    usual = load_dataset("digits")
    drawn = load_dataset("digits", options=ImageOptions(binarize="bernoulli"))
    assert 0.05 < (usual.images != drawn.images).float().mean() < 0.3
    small = load_dataset("digits", options=ImageOptions(size="16x20", fit="area"))
    assert small.image_shape == (1, 16, 20)
    assert torch.equal(load_dataset("digits", options=ImageOptions(invert=True)).images, 1 - usual.images)


def test_how_images_are_read_is_part_of_a_config():
    config = TrainingConfig.resolve(
        dataset="kmnist", image_options=ImageOptions(binarize="otsu", size="16x16", fit="pad")
    )
    assert TrainingConfig.from_dict(config.to_dict()) == config
    assert config.to_dict()["image_options"]["binarize"] == "otsu"
    old = {name: value for name, value in config.to_dict().items() if name not in ("image_options", "data")}
    assert TrainingConfig.from_dict(old) == TrainingConfig.resolve(dataset="kmnist")
