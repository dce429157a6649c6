"""All metrics: one table, by which they are measured and printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .artifacts import holes, isolated_pixels, jensen_shannon_divergence, pattern_histogram
from .classes import entropy, inception_score, missing_classes
from .features import frechet_distance, kernel_distance
from .inputs import MetricInputs, Need
from .memorization import unique_share
from .preactivations import binary_entropy, middle_mass, notch_depth, notch_ratio


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is computed and shown, and which way is better."""

    title: str
    function: Callable[[MetricInputs], float]
    needs: frozenset[Need]
    """What it cannot be computed without."""
    better: str
    """"lower", "higher", or "floor": the closer to the value of real images the better."""
    group: str
    digits: int = 3


_ALWAYS: frozenset[Need] = frozenset()
_LABELS = frozenset({Need.LABELS})
_TWO_SETS = frozenset({Need.TWO_SETS})
_FEATURES = _LABELS | _TWO_SETS
_REQUESTED = _LABELS | {Need.REQUESTED_CLASSES}
_P = frozenset({Need.PROBABILITIES})


def _label_accuracy(of: MetricInputs) -> float:
    return float((of.class_probabilities.argmax(axis=1) == of.requested_classes).mean())


def _pattern_divergence(of: MetricInputs) -> float:
    return jensen_shannon_divergence(pattern_histogram(of.first), pattern_histogram(of.second))


METRICS = {
    "frechet_distance": Metric(
        "Frechet distance", lambda of: frechet_distance(*of.features), _FEATURES, "lower", "quality"
    ),
    "kernel_distance": Metric(
        "KID x 1000", lambda of: kernel_distance(*of.features, seed=of.seed), _FEATURES, "lower", "quality"
    ),
    "inception_score": Metric(
        "inception score", lambda of: inception_score(of.class_probabilities), _LABELS, "higher", "quality"
    ),
    "precision": Metric("precision", lambda of: of.manifold["precision"], _FEATURES, "floor", "quality"),
    "recall": Metric("recall", lambda of: of.manifold["recall"], _FEATURES, "floor", "quality"),
    "density": Metric("density", lambda of: of.manifold["density"], _FEATURES, "floor", "quality"),
    "coverage": Metric("coverage", lambda of: of.manifold["coverage"], _FEATURES, "higher", "quality"),
    "two_sample_accuracy": Metric(
        "two-sample accuracy", lambda of: of.two_sample_accuracy(), _TWO_SETS, "lower", "quality"
    ),
    "class_entropy": Metric(
        "class entropy, bits", lambda of: entropy(of.class_shares), _LABELS, "higher", "classes"
    ),
    "missing_classes": Metric(
        "missing classes", lambda of: missing_classes(of.class_shares), _LABELS, "lower", "classes", 0
    ),
    "label_accuracy": Metric("of the class asked for, share", _label_accuracy, _REQUESTED, "higher", "classes"),
    "nearest_distance": Metric(
        "pixels to nearest training image", lambda of: of.nearest.mean(), _ALWAYS, "floor", "memorization", 1
    ),
    "exact_copies": Metric(
        "exact copies, share", lambda of: (of.nearest == 0).mean(), _ALWAYS, "lower", "memorization", 4
    ),
    "unique_share": Metric(
        "unique images, share", lambda of: unique_share(of.images), _ALWAYS, "higher", "memorization", 4
    ),
    "on_fraction": Metric("on pixels, share", lambda of: of.images.mean(), _ALWAYS, "floor", "artifacts"),
    "isolated_pixels": Metric(
        "isolated pixels an image", lambda of: isolated_pixels(of.images).mean(), _ALWAYS, "lower", "artifacts"
    ),
    "components": Metric("components an image", lambda of: of.components.mean(), _ALWAYS, "floor", "artifacts"),
    "multiple_components": Metric(
        "images of several components, share", lambda of: (of.components > 1).mean(), _ALWAYS, "lower", "artifacts"
    ),
    "holes": Metric("holes an image", lambda of: holes(of.images).mean(), _ALWAYS, "floor", "artifacts"),
    "pattern_divergence": Metric(
        "JS divergence of 3x3 patterns, bits", _pattern_divergence, _TWO_SETS, "lower", "artifacts", 5
    ),
    "first_bin": Metric(
        "preactivations in the first of 256 bins", lambda of: of.histogram[0], _P, "", "preactivations"
    ),
    "last_bin": Metric("preactivations in the last bin", lambda of: of.histogram[-1], _P, "", "preactivations", 4),
    "middle_mass": Metric(
        "preactivations in [0.1, 0.9]", lambda of: middle_mass(of.probabilities), _P, "", "preactivations"
    ),
    "notch_ratio": Metric(
        "density at 0.5 / mean of both sides", lambda of: notch_ratio(of.probabilities), _P, "", "preactivations"
    ),
    "notch_depth": Metric(
        "density at 0.5 / lower side", lambda of: notch_depth(of.probabilities), _P, "", "preactivations"
    ),
    "preactivation_entropy": Metric(
        "preactivation entropy, bits", lambda of: binary_entropy(of.probabilities), _P, "", "preactivations"
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
