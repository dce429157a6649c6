"""What metrics are computed from: the images of two sets, and what several metrics share, computed once."""

from __future__ import annotations

from enum import Enum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..classifier import accuracy, train_classifier
from ..reference import Images, Reference, Report
from ..samples import Samples
from . import artifacts
from .classes import class_shares
from .features import Features, precision_recall_density_coverage
from .memorization import nearest_distances
from .preactivations import preactivation_histogram

_STEPS_AT_MOST = 300  # of the two-sample test
LEAST_COMPARED = 64
"""Real images below which nothing is said of how two sets differ."""


class Need(Enum):
    """What a metric cannot do without, and what is said where that is missing."""

    LABELS = "they need labels"
    TWO_SETS = f"they compare sets of {LEAST_COMPARED} images or more"
    PROBABILITIES = "they need the probabilities that images were made from"
    REQUESTED_CLASSES = "they need the classes that were asked for"


class MetricInputs:
    """The inputs of all metrics for one set of samples. What is computed is told to `report`."""

    def __init__(
        self, samples: Samples, real: Images, reference: Reference, *, compared: int, seed: int, report: Report
    ) -> None:
        rows = np.random.default_rng(seed).permutation(len(real))[:compared]
        self.images = samples.images
        self.first, self.second = samples.images[:compared], real[rows]
        """The two sets that are compared."""
        self.probabilities = np.empty(0, np.float32) if samples.probabilities is None else samples.probabilities
        """The preactivated outputs, float32 [N, C, H, W]; empty if they are missing."""
        self.seed = seed
        self._samples, self._reference, self._report = samples, reference, report
        there = {
            Need.LABELS: reference.classifier is not None,
            Need.TWO_SETS: compared >= LEAST_COMPARED,
            Need.PROBABILITIES: samples.probabilities is not None,
            Need.REQUESTED_CLASSES: samples.labels is not None,
        }
        self.missing = {need for need, is_there in there.items() if not is_there}

    @cached_property
    def _described(self) -> tuple[Features, NDArray[np.float32]]:
        self._report("features")
        return self._describe(self.images)

    def _describe(self, images: Images) -> tuple[Features, NDArray[np.float32]]:
        if self._reference.classifier is None:
            raise ValueError(f"features: {Need.LABELS.value}")
        return self._reference.classifier.describe(images)

    @property
    def classes(self) -> NDArray[np.float32]:
        """The classifier's class probabilities, float32 [N, K]."""
        return self._described[1]

    @property
    def class_shares(self) -> NDArray[np.float64]:
        """The share of the images by most likely class, float64 [K]."""
        return class_shares(self.classes)

    def label_accuracy(self) -> float:
        """How often the classifier finds the class that was asked for."""
        return float((self.classes.argmax(axis=1) == self._samples.labels).mean())

    @cached_property
    def features(self) -> tuple[Features, Features]:
        """The classifier's features of the two sets."""
        real, _ = self._describe(self.second)
        return self._described[0][: len(real)], real

    @cached_property
    def manifold(self) -> dict[str, float]:
        """Precision, recall, density and coverage."""
        self._report("precision, recall, density and coverage")
        first, real = self.features
        return precision_recall_density_coverage(real, first)

    def two_sample_accuracy(self) -> float:
        """How often a fresh network tells the two sets apart."""
        self._report("two-sample test")
        return two_sample_accuracy(self.first, self.second, seed=self.seed)

    @cached_property
    def nearest(self) -> NDArray[np.int64]:
        """Pixels in which each image differs from the nearest training image, int64 [N]."""
        self._report("nearest training images")
        return nearest_distances(self.images, self._reference.training)

    @cached_property
    def components(self) -> NDArray[np.int64]:
        """Pieces by image, int64 [N]."""
        self._report("artifacts")
        return artifacts.components(self.images)

    def pattern_divergence(self) -> float:
        """How much the local patterns of the two sets differ."""
        return artifacts.jensen_shannon_divergence(*map(artifacts.pattern_histogram, (self.first, self.second)))

    @cached_property
    def histogram(self) -> NDArray[np.float64]:
        """That of the preactivated outputs: 256 shares of floor(255 p)."""
        return preactivation_histogram(self.probabilities)


def two_sample_accuracy(first: NDArray[np.uint8], second: NDArray[np.uint8], *, seed: int = 0) -> float:
    """Accuracy, on a held-out half, of telling two sets of images [N, C, H, W] apart: 0.5 if they are alike.

    A fresh network is trained on the other half (Lopez-Paz and Oquab 2017). Both sets are cut to the length of the
    shorter one.
    """
    count = min(len(first), len(second))
    random = np.random.default_rng(seed)
    halves = [np.array_split(images[random.permutation(len(images))[:count]], 2) for images in (first, second)]
    (train, train_labels), (test, test_labels) = (_labelled(halves[0][i], halves[1][i]) for i in range(2))
    classifier = train_classifier(train, train_labels, classes=2, steps_at_most=_STEPS_AT_MOST, seed=seed)
    return accuracy(classifier, test, test_labels)


def _labelled(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return np.concatenate([first, second]), np.repeat(np.arange(2), [len(first), len(second)])
