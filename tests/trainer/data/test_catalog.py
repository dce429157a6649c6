import shutil
import socket
import struct

import pytest
import torch

from bgan.trainer.common.errors import DataError
from bgan.trainer.config.images import DatasetSpec
from bgan.trainer.data.catalog import choose_dataset, has_classes, load_dataset, open_dataset
from bgan.trainer.data.dataset import BatchStream


def test_digits_are_binary_and_split_like_mnist():
    train, test = load_dataset("digits"), load_dataset("digits", split="test")
    assert train.images.shape == (1540, 1, 28, 28)
    assert test.images.shape == (257, 1, 28, 28)
    assert train.images.dtype == torch.uint8
    assert set(train.images.unique().tolist()) == {0, 1}
    assert set(train.labels.tolist()) == set(range(10))
    assert 0.2 < train.images.float().mean() < 0.4


def test_mnist_is_binarized_at_nonzero(mnist_dir):
    train = load_dataset("mnist", data_dir=str(mnist_dir))
    test = load_dataset("mnist", data_dir=str(mnist_dir), split="test")
    assert train.images.shape == (60_000, 1, 28, 28)
    assert test.images.shape == (10_000, 1, 28, 28)
    raw = (mnist_dir / "MNIST/raw/t10k-images-idx3-ubyte").read_bytes()
    source = torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=16).reshape(10_000, 1, 28, 28)
    assert torch.equal(test.images, (source > 0).to(torch.uint8))
    assert test.images.float().mean().item() == pytest.approx(0.1928, abs=2e-3)


def test_auto_takes_mnist_where_it_is(mnist_dir, monkeypatch):
    told = []
    assert choose_dataset("auto", data_dir=str(mnist_dir), say=told.append) == "mnist"
    monkeypatch.setenv("BGAN_DATA_DIR", str(mnist_dir))
    assert choose_dataset("auto", data_dir=None, say=told.append) == "mnist"
    assert told == []


def test_auto_says_why_it_takes_digits(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", _no_network)
    told = []
    assert choose_dataset("auto", data_dir=str(tmp_path), say=told.append) == "digits"
    (reason,) = told
    assert f"MNIST is not in {tmp_path}" in reason
    assert "BGAN_DATA_DIR" in reason
    assert "\n" not in reason


def test_mnist_never_falls_back(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", _no_network)
    with pytest.raises(DataError, match="could not be downloaded"):
        load_dataset("mnist", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:100_000],
        lambda content: b"",
        lambda content: b"no idx file at all",
        lambda content: struct.pack(">IIII", 2051, 10, 28, 28) + bytes(7840),
    ],
    ids=["truncated", "empty", "corrupt", "too few"],
)
def test_damaged_idx_files_are_named(tmp_path, mnist_dir, damage):
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(mnist_dir / "MNIST" / "raw", raw)
    path = raw / "t10k-images-idx3-ubyte"
    path.chmod(0o644)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        load_dataset("mnist", data_dir=str(tmp_path), split="test")
    assert f"MNIST in {tmp_path} cannot be read" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_batches_visit_every_image_once_an_epoch_in_another_order_each_time():
    images = torch.arange(12, dtype=torch.uint8).reshape(12, 1, 1, 1)
    stream = BatchStream(images, batch_size=4, seed=1)
    epochs = [torch.cat([stream.batch(3 * epoch + i) for i in range(3)]).flatten().tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(12)) for order in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_batch_is_a_function_of_its_index():
    images = torch.arange(50, dtype=torch.uint8).reshape(50, 1, 1, 1)
    forward = BatchStream(images, batch_size=8, seed=1)
    batches = [forward.batch(i) for i in range(20)]
    backward = BatchStream(images, batch_size=8, seed=1)
    for index in reversed(range(20)):
        assert torch.equal(backward.batch(index), batches[index])
    assert batches[0].dtype == torch.float32


def test_more_per_batch_than_there_are_images_is_refused():
    with pytest.raises(DataError, match="batch-size is 8, but there are only 3 images"):
        BatchStream(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), batch_size=8, seed=0)


def _no_network(*arguments, **options):
    raise socket.gaierror(-2, "Name or service not known")


def test_all_of_a_data_set_is_both_splits():
    whole, train, test = (load_dataset("digits", split=split) for split in ("all", "train", "test"))
    assert (whole.name, len(whole)) == ("digits", 1797)
    assert torch.equal(whole.images, torch.cat([train.images, test.images]))
    assert torch.equal(whole.labels, torch.cat([train.labels, test.labels]))


def test_names_that_have_few_images_a_class_are_known_without_reading_them(mnist_dir):
    assert has_classes(DatasetSpec(dataset="mnist", data_dir="nowhere"))
    for name in ("digits", "mnist", "stacked-mnist"):
        spec = DatasetSpec(dataset=name, data_dir=str(mnist_dir))
        train = open_dataset(spec)
        assert has_classes(spec) == (len(train) >= 100 * len(train.class_names)), name
