"""The names of all metrics: one table, from which reports and the command line print."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is shown, and which way is better."""

    title: str
    better: str
    """"lower", "higher", or "floor": the closer to the value of real images the better."""
    group: str
    digits: int = 3


METRICS = {
    "frechet_distance": Metric("Frechet distance", "lower", "quality"),
    "kernel_distance": Metric("KID x 1000", "lower", "quality"),
    "inception_score": Metric("inception score", "higher", "quality"),
    "precision": Metric("precision", "floor", "quality"),
    "recall": Metric("recall", "floor", "quality"),
    "density": Metric("density", "floor", "quality"),
    "coverage": Metric("coverage", "higher", "quality"),
    "two_sample_accuracy": Metric("two-sample accuracy", "lower", "quality"),
    "class_entropy": Metric("class entropy, bits", "higher", "classes"),
    "missing_classes": Metric("missing classes", "lower", "classes", 0),
    "label_accuracy": Metric("of the class asked for, share", "higher", "classes"),
    "nearest_distance": Metric("pixels to nearest training image", "floor", "memorization", 1),
    "exact_copies": Metric("exact copies, share", "lower", "memorization", 4),
    "unique_share": Metric("unique images, share", "higher", "memorization", 4),
    "on_fraction": Metric("on pixels, share", "floor", "artifacts"),
    "isolated_pixels": Metric("isolated pixels an image", "lower", "artifacts"),
    "components": Metric("components an image", "floor", "artifacts"),
    "multiple_components": Metric("images of several components, share", "lower", "artifacts"),
    "holes": Metric("holes an image", "floor", "artifacts"),
    "pattern_divergence": Metric("JS divergence of 3x3 patterns, bits", "lower", "artifacts", 5),
    "first_bin": Metric("preactivations in the first of 256 bins", "", "preactivations"),
    "last_bin": Metric("preactivations in the last bin", "", "preactivations", 4),
    "middle_mass": Metric("preactivations in [0.1, 0.9]", "", "preactivations"),
    "notch_ratio": Metric("density at 0.5 / mean of both sides", "", "preactivations"),
    "notch_depth": Metric("density at 0.5 / lower side", "", "preactivations"),
    "preactivation_entropy": Metric("preactivation entropy, bits", "", "preactivations"),
}


def format_value(key: str, value: float | None) -> str:
    """A metric's value as tables show it; a dash where there is none."""
    return "-" if value is None else f"{value:.{METRICS[key].digits}f}"
