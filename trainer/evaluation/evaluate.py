"""Measuring samples against a data set, beside the floor: the same of real images."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.errors import SamplesError
from ..common.files import write_json
from .classifier import Classifier, accuracy
from .metrics import artifacts, classes, memorization, preactivations
from .metrics.features import frechet_distance, kernel_distance, precision_recall_density_coverage
from .metrics.two_sample import two_sample_accuracy
from .reference import Images, Reference, Report
from .samples import Samples

LEAST_SAMPLES = 64
LEAST_COMPARED = 64
"""Real images below which nothing is said of how two sets differ."""
_OF_TWO_SETS = "Frechet distance, KID, precision, recall, density, coverage, two-sample accuracy and patterns"
_OF_LABELS = "Frechet distance, KID, inception score, precision, recall, density, coverage and classes"


_VERSION = 1  # of the metrics: another one measures cached floors anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was measured."""

    source: str
    """What was measured, for tables."""
    dataset: str
    count: int
    """Samples measured."""
    compared: int
    """Samples and real test images that the metrics of two sets compare, of each."""
    seed: int
    metrics: dict[str, float]
    """By the keys of `METRICS`, but for those that are left out."""
    floor: dict[str, float]
    """The same of real images: test against training images."""
    class_histogram: list[float] | None
    """Share of each class."""
    preactivation_histogram: list[float] | None
    """256 shares of floor(255 p)."""
    left_out: list[str]
    """What was not measured, and why."""

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)


def evaluate_samples(
    samples: Samples, reference: Reference, *, seed: int = 0, report: Report = lambda text: None
) -> Evaluation:
    """Measure samples against a data set.

    Metrics of two sets compare as many samples as there are test images, at most, and are left out where those are
    few. Memorization is measured against all training images. Raises SamplesError for fewer than 64 samples or
    another shape.
    """
    _check(samples, reference)
    images = samples.images
    compared = _compared(reference, len(images))
    metrics, shares = _measure(images, reference.test, reference, compared, seed, report)
    accuracy_of_labels = _label_accuracy(samples, reference)
    if accuracy_of_labels is not None:
        metrics["label_accuracy"] = accuracy_of_labels
    histogram = None
    if samples.probabilities is not None:
        histogram = preactivations.preactivation_histogram(samples.probabilities)
        metrics |= _preactivation_metrics(samples.probabilities, histogram)
    return Evaluation(
        source=samples.source,
        dataset=reference.dataset,
        count=len(images),
        compared=compared,
        seed=seed,
        metrics=metrics,
        floor=_floor(samples, reference, seed, report),
        class_histogram=None if shares is None else shares.tolist(),
        preactivation_histogram=None if histogram is None else histogram.tolist(),
        left_out=_left_out(samples, reference, compared),
    )


def _floor(samples: Samples, reference: Reference, seed: int, report: Report) -> dict[str, float]:
    """The floor of samples; that of labels is how often the classifier is right about real test images."""
    floor = measure_floor(reference, len(samples.images), seed=seed, report=report)
    if samples.labels is not None and reference.classifier_accuracy is not None:
        floor = {**floor, "label_accuracy": reference.classifier_accuracy}
    return floor


def _label_accuracy(samples: Samples, reference: Reference) -> float | None:
    """The share of the samples that the classifier gives the class that they were asked to be of."""
    if samples.labels is None or reference.classifier is None:
        return None
    return accuracy(reference.classifier, samples.images, samples.labels)


def _left_out(samples: Samples, reference: Reference, compared: int) -> list[str]:
    """What is not measured, and why, a line for each reason."""
    lines = []
    if reference.classifier is None:
        lines.append(f"{_OF_LABELS}: they need labels")
    if compared < LEAST_COMPARED:
        lines.append(
            f"{_OF_TWO_SETS}: they compare sets of {LEAST_COMPARED} images or more, and there are "
            f"{len(reference.test)} test and {len(reference.training)} training images"
        )
    if samples.probabilities is None:
        lines.append("preactivations: they need the probabilities that images were made from")
    return lines


def measure_floor(
    reference: Reference, count: int, *, seed: int = 0, report: Report = lambda text: None
) -> dict[str, float]:
    """What `evaluate_samples` would measure of `count` real images, from the cache where it did before.

    Pairs are test and training images; images by themselves are the test images.
    """
    compared = _compared(reference, count)
    path = reference.cache / f"floor-{reference.digest[:16]}-{compared}-{seed}-v{_VERSION}.json"
    try:
        cached: dict[str, float] = json.loads(path.read_text())
        return cached
    except (OSError, ValueError):
        report("measuring the floor: real images against real images, once for this data set")
    rows = np.random.default_rng(seed).permutation(len(reference.training))[:compared]
    floor, _ = _measure(reference.test, reference.training[rows], reference, compared, seed, report)
    write_json(path, floor)
    return floor


def _compared(reference: Reference, count: int) -> int:
    return min(count, len(reference.test), len(reference.training))


def _check(samples: Samples, reference: Reference) -> None:
    shape, expected = samples.images.shape[1:], reference.test.shape[1:]
    if shape != expected:
        raise SamplesError(
            f"{samples.source}: images are of shape {shape}, those of {reference.dataset} {expected}"
        )
    if len(samples.images) < LEAST_SAMPLES:
        raise SamplesError(
            f"{samples.source} holds {len(samples.images)} images; the metrics need at least {LEAST_SAMPLES}"
        )


def _measure(
    images: Images, real: Images, reference: Reference, compared: int, seed: int, report: Report
) -> tuple[dict[str, float], NDArray[np.float64] | None]:
    """All metrics of images but those of preactivations, and the share of each class."""
    rows = np.random.default_rng(seed).permutation(len(real))[:compared]
    first, second = images[:compared], real[rows]
    metrics: dict[str, float] = {}
    shares = None
    if reference.classifier is not None:
        metrics, shares = _feature_metrics(reference.classifier, images, second, seed, report)
    if compared >= LEAST_COMPARED:
        report("two-sample test")
        metrics["two_sample_accuracy"] = two_sample_accuracy(first, second, seed=seed)
    report("nearest training images")
    metrics |= _memorization_metrics(images, reference.training)
    report("artifacts")
    metrics |= _artifact_metrics(images)
    if compared >= LEAST_COMPARED:
        metrics["pattern_divergence"] = artifacts.jensen_shannon_divergence(
            artifacts.pattern_histogram(first), artifacts.pattern_histogram(second)
        )
    return metrics, shares


def _feature_metrics(
    classifier: Classifier, images: Images, real: Images, seed: int, report: Report
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """The metrics of features, for as many images as there are real ones, and those of classes, for all.

    Of fewer real images than LEAST_COMPARED those of classes alone.
    """
    report("features")
    features, probabilities = classifier.describe(images)
    real_features, _ = classifier.describe(real)
    compared = features[: len(real)]
    shares = classes.class_shares(probabilities)
    metrics = {
        "inception_score": classes.inception_score(probabilities),
        "class_entropy": classes.entropy(shares),
        "missing_classes": classes.missing_classes(shares),
    }
    if len(real) < LEAST_COMPARED:
        return metrics, shares
    metrics["frechet_distance"] = frechet_distance(compared, real_features)
    metrics["kernel_distance"] = kernel_distance(compared, real_features, seed=seed)
    report("precision, recall, density and coverage")
    return metrics | precision_recall_density_coverage(real_features, compared), shares


def _memorization_metrics(images: Images, training: Images) -> dict[str, float]:
    nearest = memorization.nearest_distances(images, training)
    return {
        "nearest_distance": float(nearest.mean()),
        "exact_copies": float((nearest == 0).mean()),
        "unique_share": memorization.unique_share(images),
    }


def _artifact_metrics(images: Images) -> dict[str, float]:
    pieces = artifacts.components(images)
    return {
        "on_fraction": float(images.mean()),
        "isolated_pixels": float(artifacts.isolated_pixels(images).mean()),
        "components": float(pieces.mean()),
        "multiple_components": float((pieces > 1).mean()),
        "holes": float(artifacts.holes(images).mean()),
    }


def _preactivation_metrics(probabilities: NDArray[np.float32], histogram: NDArray[np.float64]) -> dict[str, float]:
    return {
        "first_bin": float(histogram[0]),
        "last_bin": float(histogram[-1]),
        "middle_mass": preactivations.middle_mass(probabilities),
        "notch_ratio": preactivations.notch_ratio(probabilities),
        "notch_depth": preactivations.notch_depth(probabilities),
        "preactivation_entropy": preactivations.binary_entropy(probabilities),
    }
