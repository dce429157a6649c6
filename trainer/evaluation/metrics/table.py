"""All metrics: one table, by which they are measured and printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from .artifacts import holes, isolated_pixels
from .classes import entropy, inception_score, missing_classes
from .features import frechet_distance, kernel_distance
from .inputs import MetricInputs, Need
from .memorization import unique_share
from .preactivations import binary_entropy, middle_mass, notch_depth, notch_ratio


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is computed and shown, and which way is better."""

    group: str
    title: str
    function: Callable[[MetricInputs], float]
    better: str
    """"lower", "higher", or "floor": the closer to the value of real images the better."""
    needs: frozenset[Need] = frozenset()
    """What it cannot be computed without."""
    digits: int = 3


_LABELS = frozenset({Need.LABELS})
_TWO_SETS = frozenset({Need.TWO_SETS})
_FEATURES = _LABELS | _TWO_SETS
_REQUESTED = _LABELS | {Need.REQUESTED_CLASSES}
_quality = partial(Metric, "quality")
_classes = partial(Metric, "classes")
_memorization = partial(Metric, "memorization")
_artifacts = partial(Metric, "artifacts")
_preactivations = partial(Metric, "preactivations", needs=frozenset({Need.PROBABILITIES}), better="")

METRICS = {
    "frechet_distance": _quality("Frechet distance", lambda x: frechet_distance(*x.features), "lower", _FEATURES),
    "kernel_distance": _quality(
        "KID x 1000", lambda x: kernel_distance(*x.features, seed=x.seed), "lower", _FEATURES
    ),
    "inception_score": _quality("inception score", lambda x: inception_score(x.classes), "higher", _LABELS),
    "precision": _quality("precision", lambda x: x.manifold["precision"], "floor", _FEATURES),
    "recall": _quality("recall", lambda x: x.manifold["recall"], "floor", _FEATURES),
    "density": _quality("density", lambda x: x.manifold["density"], "floor", _FEATURES),
    "coverage": _quality("coverage", lambda x: x.manifold["coverage"], "higher", _FEATURES),
    "two_sample_accuracy": _quality("two-sample accuracy", MetricInputs.two_sample_accuracy, "lower", _TWO_SETS),
    "class_entropy": _classes("class entropy, bits", lambda x: entropy(x.class_shares), "higher", _LABELS),
    "missing_classes": _classes("missing classes", lambda x: missing_classes(x.class_shares), "lower", _LABELS, 0),
    "label_accuracy": _classes("of the class asked for, share", MetricInputs.label_accuracy, "higher", _REQUESTED),
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
