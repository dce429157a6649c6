"""All metrics: one table, by which they are measured and printed, and what several share, computed once."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from ..classifier import accuracy, train_classifier
from ..reference import Images, Reference, Report
from ..samples import Samples
from ..stacked import StackedClassifier, mode_divergence, modes_found
from . import artifacts
from .artifacts import holes, isolated_pixels
from .features import (
    Features,
    class_shares,
    entropy,
    frechet_distance,
    inception_score,
    kernel_distance,
    missing_classes,
    precision_recall_density_coverage,
)
from .memorization import nearest_distances, unique_share
from .preactivations import (
    binary_entropy,
    draw_distance,
    latent_distance,
    middle_mass,
    notch_depth,
    notch_ratio,
    preactivation_histogram,
)

_STEPS_AT_MOST = 300  # of the two-sample test
LEAST_COMPARED = 64
"""Real images below which nothing is said of how two sets differ."""


class Need(Enum):
    """What a metric cannot do without, and what is said where that is missing."""

    LABELS = "they need labels"
    TWO_SETS = f"they compare sets of {LEAST_COMPARED} images or more"
    PROBABILITIES = "they need the probabilities that images were made from"
    REQUESTED_CLASSES = "they need the classes of the data set that were asked for"
    STACKED_DIGITS = "they need Stacked MNIST"


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
            Need.REQUESTED_CLASSES: samples.labels is not None and samples.classes in {None, reference.classes},
            Need.STACKED_DIGITS: isinstance(reference.classifier, StackedClassifier),
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

    def missing_classes(self) -> int:
        """Classes that are all but missing, by their shares of the training images."""
        if self._reference.class_shares is None:
            raise ValueError(f"missing classes: {Need.LABELS.value}")
        return missing_classes(self.class_shares, self._reference.class_shares)

    def mode_divergence(self) -> float:
        """How far the classes of the images are from those of the training images, in nats."""
        if self._reference.class_shares is None:
            raise ValueError(f"modes: {Need.LABELS.value}")
        return mode_divergence(self.class_shares, self._reference.class_shares)

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
    train, test = map(np.concatenate, zip(*halves, strict=True))
    train_labels, test_labels = (np.repeat(np.arange(2), len(images) // 2) for images in (train, test))
    classifier = train_classifier(train, train_labels, classes=2, steps_at_most=_STEPS_AT_MOST, seed=seed)
    return accuracy(classifier, test, test_labels)


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is computed and shown, and which way is better."""

    group: str
    title: str
    function: Callable[[MetricInputs], float]
    better: str
    """"lower", "higher", or "floor": the closer to the value of real images the better."""
    needs: frozenset[Need] = frozenset()
    digits: int = 3


_LABELS = frozenset({Need.LABELS})
_TWO_SETS = frozenset({Need.TWO_SETS})
_FEATURES = _LABELS | _TWO_SETS
_REQUESTED = _LABELS | {Need.REQUESTED_CLASSES}
_STACKED = _LABELS | {Need.STACKED_DIGITS}
_quality = partial(Metric, "quality")
_classes = partial(Metric, "classes")
_memorization = partial(Metric, "memorization")
_artifacts = partial(Metric, "artifacts")
_preactivations = partial(Metric, "preactivations", needs=frozenset({Need.PROBABILITIES}), better="")

METRICS = {
    "frechet_distance": _quality("Frechet distance", lambda x: frechet_distance(*x.features), "lower", _FEATURES),
    "kernel_distance": _quality("KID x 1000", lambda x: kernel_distance(*x.features), "lower", _FEATURES),
    "inception_score": _quality("inception score", lambda x: inception_score(x.classes), "floor", _LABELS),
    "precision": _quality("precision", lambda x: x.manifold["precision"], "floor", _FEATURES),
    "recall": _quality("recall", lambda x: x.manifold["recall"], "floor", _FEATURES),
    "density": _quality("density", lambda x: x.manifold["density"], "floor", _FEATURES),
    "coverage": _quality("coverage", lambda x: x.manifold["coverage"], "higher", _FEATURES),
    "two_sample_accuracy": _quality("two-sample accuracy", MetricInputs.two_sample_accuracy, "lower", _TWO_SETS),
    "class_entropy": _classes("class entropy, bits", lambda x: entropy(x.class_shares), "floor", _LABELS),
    "missing_classes": _classes("missing classes", MetricInputs.missing_classes, "lower", _LABELS, 0),
    "label_accuracy": _classes("of the class asked for, share", MetricInputs.label_accuracy, "higher", _REQUESTED),
    "modes_found": _classes("modes found, of 1,000", lambda x: modes_found(x.class_shares), "higher", _STACKED, 0),
    "mode_divergence": _classes("KL of modes, nats", MetricInputs.mode_divergence, "lower", _STACKED),
    "nearest_distance": _memorization(
        "pixels to nearest training image", lambda x: x.nearest.mean(), "floor", digits=1
    ),
    "exact_copies": _memorization("exact copies, share", lambda x: (x.nearest == 0).mean(), "lower", digits=4),
    "unique_share": _memorization("unique images, share", lambda x: unique_share(x.images), "higher", digits=4),
    "on_fraction": _artifacts("on pixels, share", lambda x: x.images.mean(), "floor"),
    "isolated_pixels": _artifacts("isolated pixels an image", lambda x: isolated_pixels(x.images).mean(), "lower"),
    "components": _artifacts("components an image", lambda x: x.components.mean(), "floor"),
    "multiple_components": _artifacts(
        "images of several components, share", lambda x: (x.components > 1).mean(), "lower"
    ),
    "holes": _artifacts("holes an image", lambda x: holes(x.images).mean(), "floor"),
    "pattern_divergence": _artifacts(
        "JS divergence of 3x3 patterns, bits", MetricInputs.pattern_divergence, "lower", _TWO_SETS, 5
    ),
    "first_bin": _preactivations("preactivations in the first of 256 bins", lambda x: x.histogram[0]),
    "last_bin": _preactivations("preactivations in the last bin", lambda x: x.histogram[-1], digits=4),
    "middle_mass": _preactivations("preactivations in [0.1, 0.9]", lambda x: middle_mass(x.probabilities)),
    "notch_ratio": _preactivations("density at 0.5 / mean of both sides", lambda x: notch_ratio(x.probabilities)),
    "notch_depth": _preactivations("density at 0.5 / lower side", lambda x: notch_depth(x.probabilities)),
    "preactivation_entropy": _preactivations(
        "preactivation entropy, bits", lambda x: binary_entropy(x.probabilities)
    ),
    "draw_distance": _preactivations(
        "pixels between draws of one latent", lambda x: draw_distance(x.probabilities), digits=1
    ),
    "latent_distance": _preactivations(
        "pixels between draws of two latents", lambda x: latent_distance(x.probabilities), digits=1
    ),
}


def measure(inputs: MetricInputs) -> dict[str, float]:
    """All metrics, by key, but those that need what is missing."""
    return {key: metric.function(inputs) for key, metric in METRICS.items() if not metric.needs & inputs.missing}


def titles_needing(need: Need) -> str:
    """The metrics that need something, as a list in words: a group by its name where all of it does."""
    names = []
    for group in dict.fromkeys(metric.group for metric in METRICS.values()):
        metrics = [metric for metric in METRICS.values() if metric.group == group]
        needing = [metric.title.split(",")[0] for metric in metrics if need in metric.needs]
        names += [group] if len(needing) == len(metrics) else needing
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def format_value(key: str, value: float | None) -> str:
    """A metric's value as tables show it; a dash where there is none."""
    return "-" if value is None else f"{value:.{METRICS[key].digits}f}"
