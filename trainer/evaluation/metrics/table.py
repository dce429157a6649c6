"""All metrics: one table, by which they are measured and printed, and what several share, computed once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...common import entry_points
from ...common.errors import ConfigError
from ...common.text import first_line
from ..reference import Images, Reference, Report
from ..samples import Samples
from ..stacked import StackedClassifier, mode_divergence, modes_found
from . import artifacts
from .errors import Estimate, is_distinct, jackknife_estimate, mean_estimate
from .features import (
    Features,
    class_shares,
    entropy,
    frechet_distance,
    inception_score,
    is_ambiguous,
    kernel_distance,
    missing_classes,
    share_deviation,
)
from .manifold import precision_recall_density_coverage
from .memorization import nearest_distances, unique_share
from .preactivations import (
    binary_entropies,
    densities,
    draw_distances,
    is_in_the_middle,
    latent_distances,
    levels,
    notch_depth,
    notch_ratio,
    preactivation_histogram,
)
from .two_sample import two_sample_accuracy

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
        self.images = samples.images
        self.first, self.second = samples.images[:compared], drawn(real, compared, seed=seed)
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

    @property
    def _real_shares(self) -> NDArray[np.float64]:
        """Those of the training images."""
        if self._reference.class_shares is None:
            raise ValueError(f"shares of classes: {Need.LABELS.value}")
        return self._reference.class_shares

    def missing_classes(self) -> Estimate:
        """Classes that are all but missing, by their shares of the training images."""
        return Estimate(missing_classes(self.class_shares, self._real_shares))

    def share_deviation(self) -> Estimate:
        """By how much the share of a class is off at most, relative to that of the training images."""
        shares = self._real_shares
        return jackknife_estimate(lambda rows: share_deviation(class_shares(rows), shares), self.classes)

    def mode_divergence(self) -> Estimate:
        """How far the classes of the images are from those of the training images, in nats."""
        shares = self._real_shares
        return jackknife_estimate(lambda rows: mode_divergence(class_shares(rows), shares), self.classes)

    def is_of_the_class_asked_for(self) -> NDArray[np.bool_]:
        """Whether the classifier finds the class that was asked for, bool [N]."""
        return np.asarray(self.classes.argmax(axis=1) == self._samples.labels)

    @property
    def own_features(self) -> Features:
        """The classifier's features of the samples that are compared."""
        return self._described[0][: len(self.second)]

    @cached_property
    def real_features(self) -> Features:
        """Those of the real images that they are compared with."""
        return self._describe(self.second)[0]

    @cached_property
    def training_features(self) -> Features:
        """Those of as many training images."""
        return self._describe(drawn(self._reference.training, len(self.second), seed=self.seed))[0]

    @cached_property
    def manifold(self) -> dict[str, Estimate]:
        """Precision, recall, density and coverage."""
        self._report("precision, recall, density and coverage")
        return precision_recall_density_coverage(self.real_features, self.own_features)

    def two_sample_accuracy(self) -> Estimate:
        """How often fresh networks tell the two sets apart."""
        self._report("two-sample test")
        return two_sample_accuracy(self.first, self.second, seed=self.seed, device=self._reference.device)

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

    def pattern_divergence(self) -> Estimate:
        """How much the local patterns of the two sets differ."""
        own, real = map(artifacts.pattern_counts, (self.first, self.second))
        counts = real.sum(axis=0)
        return jackknife_estimate(lambda rows: artifacts.jensen_shannon_divergence(rows.sum(axis=0), counts), own)

    @cached_property
    def densities(self) -> NDArray[np.float64]:
        """Those of preactivated outputs around 0.5, by image, float64 [N, 3]."""
        return densities(self.probabilities)

    @cached_property
    def histogram(self) -> NDArray[np.float64]:
        """That of the preactivated outputs: 256 shares of floor(255 p)."""
        return preactivation_histogram(self.probabilities)


def drawn(images: Images, count: int, *, seed: int) -> Images:
    """`count` of the images in a random order, or all if there are fewer."""
    return images[np.random.default_rng(seed).permutation(len(images))[:count]]


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is computed and shown, and which way is better."""

    group: str
    title: str
    function: Callable[[MetricInputs], Estimate]
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


def _frechet(own: Features, real: Features) -> Estimate:
    return jackknife_estimate(lambda rows: frechet_distance(rows, real), own)


METRICS: dict[str, Metric] = {
    "frechet_distance": _quality(
        "Frechet distance", lambda x: _frechet(x.own_features, x.real_features), "lower", _FEATURES
    ),
    "training_frechet_distance": _quality(
        "Frechet distance to training images",
        lambda x: _frechet(x.own_features, x.training_features),
        "lower",
        _FEATURES,
    ),
    "kernel_distance": _quality(
        "KID x 1000", lambda x: kernel_distance(x.own_features, x.real_features), "lower", _FEATURES
    ),
    "training_kernel_distance": _quality(
        "KID x 1000 to training images",
        lambda x: kernel_distance(x.own_features, x.training_features),
        "lower",
        _FEATURES,
    ),
    "inception_score": _quality(
        "inception score", lambda x: jackknife_estimate(inception_score, x.classes), "floor", _LABELS
    ),
    "precision": _quality("precision", lambda x: x.manifold["precision"], "floor", _FEATURES),
    "recall": _quality("recall", lambda x: x.manifold["recall"], "floor", _FEATURES),
    "density": _quality("density", lambda x: x.manifold["density"], "floor", _FEATURES),
    "coverage": _quality("coverage", lambda x: x.manifold["coverage"], "higher", _FEATURES),
    "two_sample_accuracy": _quality("two-sample accuracy", MetricInputs.two_sample_accuracy, "lower", _TWO_SETS),
    "class_entropy": _classes(
        "class entropy, bits",
        lambda x: jackknife_estimate(lambda rows: entropy(class_shares(rows)), x.classes),
        "floor",
        _LABELS,
    ),
    "missing_classes": _classes("missing classes", MetricInputs.missing_classes, "lower", _LABELS, 0),
    "share_deviation": _classes(
        "largest error of a class's share", MetricInputs.share_deviation, "floor", _LABELS
    ),
    "ambiguous_share": _classes(
        "ambiguous, confidence under 0.95, share",
        lambda x: mean_estimate(is_ambiguous(x.classes)),
        "floor",
        _LABELS,
    ),
    "label_accuracy": _classes(
        "of the class asked for, share",
        lambda x: mean_estimate(x.is_of_the_class_asked_for()),
        "higher",
        _REQUESTED,
    ),
    "modes_found": _classes(
        "modes found, of 1,000", lambda x: Estimate(modes_found(x.class_shares)), "higher", _STACKED, 0
    ),
    "mode_divergence": _classes("KL of modes, nats", MetricInputs.mode_divergence, "lower", _STACKED),
    "nearest_distance": _memorization(
        "pixels to nearest training image", lambda x: mean_estimate(x.nearest), "floor", digits=1
    ),
    "exact_copies": _memorization(
        "exact copies, share", lambda x: mean_estimate(x.nearest == 0), "lower", digits=4
    ),
    "unique_share": _memorization(
        "unique images, share", lambda x: jackknife_estimate(unique_share, x.images), "higher", digits=4
    ),
    "on_fraction": _artifacts("on pixels, share", lambda x: mean_estimate(x.images), "floor"),
    "isolated_pixels": _artifacts(
        "isolated pixels an image", lambda x: mean_estimate(artifacts.isolated_pixels(x.images)), "lower"
    ),
    "components": _artifacts("components an image", lambda x: mean_estimate(x.components), "floor"),
    "multiple_components": _artifacts(
        "images of several components, share", lambda x: mean_estimate(x.components > 1), "lower"
    ),
    "holes": _artifacts("holes an image", lambda x: mean_estimate(artifacts.holes(x.images)), "floor"),
    "pattern_divergence": _artifacts(
        "JS divergence of 3x3 patterns, bits", MetricInputs.pattern_divergence, "lower", _TWO_SETS, 5
    ),
    "first_bin": _preactivations(
        "preactivations in the first of 256 bins", lambda x: mean_estimate(levels(x.probabilities) == 0)
    ),
    "last_bin": _preactivations(
        "preactivations in the last bin", lambda x: mean_estimate(levels(x.probabilities) == 255), digits=4
    ),
    "middle_mass": _preactivations(
        "preactivations in [0.1, 0.9]", lambda x: mean_estimate(is_in_the_middle(x.probabilities))
    ),
    "notch_ratio": _preactivations(
        "density at 0.5 / mean of both sides", lambda x: jackknife_estimate(notch_ratio, x.densities)
    ),
    "notch_depth": _preactivations(
        "density at 0.5 / lower side", lambda x: jackknife_estimate(notch_depth, x.densities)
    ),
    "preactivation_entropy": _preactivations(
        "preactivation entropy, bits", lambda x: mean_estimate(binary_entropies(x.probabilities))
    ),
    "draw_distance": _preactivations(
        "pixels between draws of one latent", lambda x: mean_estimate(draw_distances(x.probabilities)), digits=1
    ),
    "latent_distance": _preactivations(
        "pixels between draws of two latents",
        lambda x: mean_estimate(latent_distances(x.probabilities)),
        digits=1,
    ),
}


def all_metrics() -> dict[str, Metric]:
    """Those of `METRICS`, and those that other packages add. Raises ConfigError where one of these is broken."""
    return METRICS | {name: _added(name) for name in entry_points.registered(entry_points.METRICS)}


@cache
def _added(name: str) -> Metric:
    metric, what = entry_points.load(entry_points.METRICS, name), entry_points.shown(entry_points.METRICS, name)
    if not isinstance(metric, Metric):
        raise ConfigError(f"{what} is of type {type(metric).__name__}, not a Metric")
    if name in METRICS:
        raise ConfigError(f"{what} has the name of a metric of bgan; give it another")
    return metric


TO_TRAINING_IMAGES = ("training_frechet_distance", "training_kernel_distance")
"""Metrics of samples against training images; of the two sets, the others take the test images."""


class Figures(NamedTuple):
    """What was measured of one source, by the keys of `METRICS`."""

    values: dict[str, float]
    errors: dict[str, float]
    """Standard errors; a figure that has none is left out."""

    def of(self, key: str) -> Estimate | None:
        """One of them, None if it was not measured."""
        return Estimate(self.values[key], self.errors.get(key)) if key in self.values else None

    def text(self, key: str) -> str:
        """One of them as tables show it, with its error; a dash where there is none."""
        return format_estimate(key, self.of(key))

    def updated(self, key: str, estimate: Estimate) -> Figures:
        """These with one more, or another one."""
        errors = {} if estimate.error is None else {key: estimate.error}
        kept = {other: error for other, error in self.errors.items() if other != key}
        return Figures({**self.values, key: estimate.value}, {**kept, **errors})


def measure(inputs: MetricInputs, keys: Collection[str] = tuple(METRICS)) -> Figures:
    """The metrics of these keys, but those that need what is missing. Raises ConfigError where one is broken."""
    found, metrics = Figures({}, {}), all_metrics()
    for key in keys:
        if not metrics[key].needs & inputs.missing:
            found = found.updated(key, metrics[key].function(inputs) if key in METRICS else _tried(key, inputs))
    return found


def _tried(key: str, inputs: MetricInputs) -> Estimate:
    """A metric of another package. Raises ConfigError where it fails."""
    try:
        estimate = _added(key).function(inputs)
    except Exception as error:  # of code that is not ours
        what = entry_points.shown(entry_points.METRICS, key)
        raise ConfigError(f"{what} fails ({type(error).__name__}: {first_line(error)})") from error
    return estimate if isinstance(estimate, Estimate) else Estimate(float(estimate))


def indistinct(first: Figures, second: Figures) -> list[str]:
    """The titles of the metrics in which two do not differ by more than twice the error of their difference."""
    return [
        metric.title
        for key, metric in all_metrics().items()
        if (one := first.of(key)) and (other := second.of(key)) and not is_distinct(one, other)
    ]


def titles_needing(need: Need) -> str:
    """The metrics that need something, as a list in words: a group by its name where all of it does."""
    names = []
    for group in dict.fromkeys(metric.group for metric in METRICS.values()):
        metrics = [metric for metric in METRICS.values() if metric.group == group]
        needing = [metric.title.split(",")[0] for metric in metrics if need in metric.needs]
        names += [group] if len(needing) == len(metrics) else needing
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def format_estimate(key: str, estimate: Estimate | None) -> str:
    """A metric's value as tables show it, with its error where it has one; a dash where there is none."""
    if estimate is None or estimate.error is None:
        return format_value(key, estimate and estimate.value)
    return f"{format_value(key, estimate.value)} ± {format_value(key, estimate.error)}"


def format_value(key: str, value: float | None) -> str:
    """A metric's value as tables show it; a dash where there is none."""
    return "-" if value is None else f"{value:.{all_metrics()[key].digits}f}"
