"""Dynamic binarization: grey values as probabilities, drawn anew for each epoch of training."""

import numpy as np
import pytest
import torch

from bgan.trainer.common.errors import DataError
from bgan.trainer.config.images import DatasetSpec, ImageOptions
from bgan.trainer.config.training import TrainingConfig
from bgan.trainer.data.catalog import load_dataset, open_dataset
from bgan.trainer.data.dataset import BatchStream
from bgan.trainer.data.packed import packed_dataset
from bgan.trainer.training.trainer import Trainer

GREY = np.random.default_rng(0).integers(0, 256, (50, 1, 6, 7), np.uint8)
DYNAMIC = ImageOptions(binarize="dynamic", bernoulli_seed=4)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """50 grey images in a file, to be drawn dynamically."""
    monkeypatch.setenv("BGAN_CACHE_DIR", str(tmp_path / "cache"))
    np.save(tmp_path / "a.npy", GREY)
    return DatasetSpec(dataset="a", path=str(tmp_path / "a.npy"), options=DYNAMIC)


def epoch(stream, number):
    """The images of an epoch, by the order of their set."""
    count = stream.batches_per_epoch
    order = torch.cat([stream._rows(number * count + i) for i in range(count)])
    images = torch.cat([stream.batch(number * count + i) for i in range(count)])
    return images[order.argsort()].numpy()


def test_every_epoch_draws_each_image_anew_with_its_greys_as_probabilities(own):
    stream = BatchStream(open_dataset(own, split="all").images, batch_size=10, seed=1)
    assert stream.batch(0).dtype == torch.float32
    draws = np.stack([epoch(stream, number) for number in range(100)])
    assert set(np.unique(draws)) == {0, 1}
    error = 5 * np.sqrt(GREY / 255 * (1 - GREY / 255) / 100)
    assert (np.abs(draws.mean(axis=0) - GREY / 255) <= error).all()
    assert (draws[0] != draws[1]).mean() > 0.1


def test_a_batch_is_a_function_of_seed_and_index_and_an_image_is_drawn_alike_in_batches_of_any_size(own):
    images = open_dataset(own).images
    stream = BatchStream(images, batch_size=9, seed=1)
    batches = [stream.batch(i) for i in range(12)]
    resumed = BatchStream(images, batch_size=9, seed=1)
    for index in (11, 3, 0, 7):
        assert torch.equal(resumed.batch(index), batches[index])
    larger = BatchStream(images, batch_size=43, seed=1)
    for index in range(4):
        assert torch.equal(larger.batch(0)[9 * index : 9 * index + 9], batches[index])
    assert not torch.equal(BatchStream(images, batch_size=9, seed=2).batch(0), batches[0])


def test_what_is_measured_against_is_drawn_once_as_bernoulli_draws_it(own):
    drawn = ImageOptions(binarize="bernoulli", bernoulli_seed=4)
    fixed = DatasetSpec(dataset="a", path=own.path, options=drawn)
    for split in ("train", "test", "all"):
        ours, theirs = (open_dataset(spec, split=split) for spec in (own, fixed))
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
        np.testing.assert_array_equal(ours.in_memory(5).numpy(), theirs.in_memory(5).numpy())
        np.testing.assert_array_equal(ours.first(3).numpy(), theirs.first(3).numpy())
    assert open_dataset(own).digest != open_dataset(fixed).digest


def test_a_validation_split_stays_dynamic(own):
    spec = DatasetSpec(dataset="a", path=own.path, options=DYNAMIC, validation_images=13)
    images = open_dataset(spec).images
    whole = BatchStream(open_dataset(own).images, batch_size=43, seed=1)
    stream = BatchStream(images, batch_size=30, seed=1)
    places = np.searchsorted(open_dataset(own).images.positions, images.positions)
    np.testing.assert_array_equal(epoch(stream, 2), epoch(whole, 2)[places])


def test_greys_are_kept_on_disk_inverted_and_resized(own, tmp_path):
    options = ImageOptions(binarize="dynamic", invert=True, size="3x7", fit="area")
    packed = packed_dataset(tmp_path / "a.npy", options)
    expected = np.round((255 - GREY.astype(float)).reshape(50, 1, 3, 2, 7).mean(axis=3))
    np.testing.assert_array_equal(packed.rows.reshape(50, 1, 3, 7), expected)
    assert packed_dataset(tmp_path / "a.npy", options).digest == packed.digest


def test_a_data_set_by_name_can_be_drawn_dynamically():
    for split in ("train", "all"):
        dataset = load_dataset("digits", split=split, options=DYNAMIC)
        assert len(dataset.in_memory(9)) == len(dataset) == len(dataset.labels)
    stream = BatchStream(dataset.images, batch_size=64, seed=0)
    assert (epoch(stream, 0) != epoch(stream, 1)).mean() > 0.05
    grey = load_dataset("digits", options=ImageOptions(binarize="bernoulli"))
    assert abs(stream.batch(3).mean() - grey.images.float().mean()) < 0.02


def test_a_resumed_training_draws_what_an_unbroken_one_does(own):
    dataset = open_dataset(own)
    config = TrainingConfig.resolve(objective="gan", batch_size=20, image_options=DYNAMIC, dataset="a", data="a")
    whole, before, after = (Trainer(config, dataset, torch.device("cpu")) for _ in range(3))
    for _ in range(5):
        whole.train_step()
    for _ in range(2):
        before.train_step()
    after.load_state_dict(before.state_dict(), before.step)
    for _ in range(3):
        after.train_step()
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, after.state_dict()[name]), name


def test_what_cannot_be_drawn_is_one_line(tmp_path, own):
    np.save(tmp_path / "b.npy", np.random.default_rng(0).normal(size=(20, 6, 7)))
    with pytest.raises(DataError, match="dynamic takes values as probabilities, but some are below 0"):
        packed_dataset(tmp_path / "b.npy", DYNAMIC)
    np.save(tmp_path / "b.npy", np.tile(np.uint8([255, 0]), (20, 6, 3)))
    with pytest.raises(DataError, match="all 20 images are the same as dynamic takes them"):
        packed_dataset(tmp_path / "b.npy", DYNAMIC)
    np.save(tmp_path / "b.npy", 255 * (GREY[:, 0] > 99).astype(np.uint8))
    (note,) = packed_dataset(tmp_path / "b.npy", DYNAMIC).notes
    assert note == "no value is between the least and the greatest: every epoch draws the same images"
