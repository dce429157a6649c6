"""Stacked MNIST: classes by digit, and the count of its modes."""

import math

import numpy as np
import pytest
import torch

from bgan.trainer.data.catalog import load_dataset
from bgan.trainer.data.dataset import BinaryDataset
from bgan.trainer.evaluation.classifier import accuracy
from bgan.trainer.evaluation.metrics.table import METRICS, MetricInputs, Need
from bgan.trainer.evaluation.reference import make_reference
from bgan.trainer.evaluation.samples import Samples
from bgan.trainer.evaluation.stacked import (
    mode_divergence,
    modes_found,
    stacked_classifier,
)

DIGITS = np.random.default_rng(0).random((10, 8, 8)) < 0.5  # ten plain patterns


def stacks(labels):
    """Images of three patterns, uint8 [N, 3, 8, 8], whose classes are these."""
    return np.stack([DIGITS[labels // place % 10] for place in (100, 10, 1)], axis=1).astype(np.uint8)


def dataset(labels):
    classes = tuple(f"{label:03}" for label in range(1000))
    return BinaryDataset("stacked-mnist", torch.from_numpy(stacks(labels)), torch.from_numpy(labels), classes)


@pytest.fixture(scope="module")
def reference(tmp_path_factory, training):
    every = np.arange(1000)
    return make_reference(dataset(every), dataset(every[::-1].copy()), cache=tmp_path_factory.mktemp("cache"))


def test_each_channel_is_classified_by_itself(reference):
    classifier = reference.classifier
    labels = np.array([0, 7, 123, 987, 990])
    features, probabilities = classifier.describe(stacks(labels))
    assert features.shape == (5, 3 * 128)
    assert probabilities.shape == (5, 1000)
    assert probabilities.argmax(axis=1).tolist() == labels.tolist()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    own = [classifier.digits.describe(stacks(labels)[:, [channel]])[1] for channel in range(3)]
    np.testing.assert_allclose(probabilities[:, 123], own[0][:, 1] * own[1][:, 2] * own[2][:, 3], rtol=1e-5)


def test_modes_are_counted_and_compared():
    even = np.full(1000, 1 / 1000)
    assert (modes_found(even), mode_divergence(even, even)) == (1000, 0)
    half = np.where(np.arange(1000) < 500, 1 / 500, 0)
    assert (modes_found(half), mode_divergence(half, even)) == (500, pytest.approx(math.log(2)))
    draws = np.random.default_rng(0).multinomial(10_000, even, size=20) / 10_000
    measured = [mode_divergence(draw, even) for draw in draws]
    assert np.mean(measured) == pytest.approx(999 / 20_000, rel=0.05)


def test_samples_that_lack_nine_of_ten_modes_are_found_out(reference):
    def measured(labels):
        samples = Samples("some", stacks(labels))
        inputs = MetricInputs(samples, reference.test, reference, compared=64, seed=0, report=lambda text: None)
        assert Need.STACKED_DIGITS not in inputs.missing
        return [
            METRICS[key].function(inputs).value for key in ("modes_found", "mode_divergence", "missing_classes")
        ]

    assert measured(np.arange(1000) % 100) == [100, pytest.approx(math.log(10), abs=1e-6), 900]
    assert measured(np.arange(2000) % 1000) == [1000, pytest.approx(0, abs=1e-6), 0]


def test_the_classifier_of_mnist_that_comes_with_bgan_is_used(mnist_dir, tmp_path):
    said = []
    train, test = (load_dataset("stacked-mnist", data_dir=str(mnist_dir), split=x) for x in ("train", "test"))
    own, _ = stacked_classifier(train.numpy(), train.labels.numpy(), cache=tmp_path, report=said.append)
    assert said == []
    assert accuracy(own, test.numpy()[:1000], test.labels.numpy()[:1000]) > 0.95
    assert torch.bincount(train.labels).min() > 20
    assert len(torch.bincount(train.labels)) == len(test.labels.unique()) == 1000
