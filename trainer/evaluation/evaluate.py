"""Measuring samples against a data set, beside the floor: the same of real images."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..common.errors import SamplesError
from ..common.files import write_json
from .classifier import SHIPPED
from .metrics.table import MetricInputs, Need, measure, titles_needing
from .reference import Reference, Report
from .samples import Samples

LEAST_SAMPLES = 64
_VERSION = 2  # of the metrics: another one measures cached floors again


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was measured."""

    source: str
    """What was measured, for tables."""
    dataset: str
    count: int
    compared: int
    """Samples and real test images that the metrics of two sets compare, of each."""
    seed: int
    metrics: dict[str, float]
    """By the keys of `METRICS`, but for those that are left out."""
    floor: dict[str, float]
    """The same of real images: test against training images."""
    class_histogram: list[float] | None
    preactivation_histogram: list[float] | None
    """256 shares of floor(255 p)."""
    left_out: list[str]

    def class_percents(self) -> str:
        """The share of each class in per cent; nothing without a classifier."""
        return " ".join(f"{100 * share:.1f}" for share in self.class_histogram or [])

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
    compared = _compared(reference, len(samples.images))
    inputs = MetricInputs(samples, reference.test, reference, compared=compared, seed=seed, report=report)
    metrics = measure(inputs)
    floor = measure_floor(reference, len(samples.images), seed=seed, report=report)
    if "label_accuracy" in metrics and reference.classifier_accuracy is not None:
        floor = {**floor, "label_accuracy": reference.classifier_accuracy}
    return Evaluation(
        source=samples.source,
        dataset=reference.dataset,
        count=len(samples.images),
        compared=compared,
        seed=seed,
        metrics=metrics,
        floor=floor,
        class_histogram=None if Need.LABELS in inputs.missing else inputs.class_shares.tolist(),
        preactivation_histogram=None if Need.PROBABILITIES in inputs.missing else inputs.histogram.tolist(),
        left_out=_left_out(inputs.missing, reference),
    )


def _left_out(missing: set[Need], reference: Reference) -> list[str]:
    """What is not measured, and why, a line for each reason but those that hold of most generators."""
    counts = (
        f", and there are {len(reference.test)} {reference.split} and {len(reference.training)} training images"
    )
    return [
        f"{titles_needing(need)}: {need.value}{counts if need is Need.TWO_SETS else ''}"
        for need in Need
        if need in missing - {Need.REQUESTED_CLASSES, Need.STACKED_DIGITS}
    ]


def measure_floor(
    reference: Reference, count: int, *, seed: int = 0, report: Report = lambda text: None
) -> dict[str, float]:
    """What `evaluate_samples` would measure of `count` real images; from what is shipped or cached if it is there.

    Pairs are test and training images; images by themselves are the test images.
    """
    compared = _compared(reference, count)
    name = f"floor-{reference.digest[:16]}-{compared}-{seed}-v{_VERSION}.json"
    for folder in (SHIPPED, reference.cache):
        try:
            known: dict[str, float] = json.loads((folder / name).read_bytes())
            return known
        except (OSError, ValueError):
            pass
    report("measuring the floor: real images against real images, once for this data set")
    rows = np.random.default_rng(seed).permutation(len(reference.training))[:compared]
    real = Samples(f"real {reference.split} images", reference.test)
    training = reference.training[rows]
    floor = measure(MetricInputs(real, training, reference, compared=compared, seed=seed, report=report))
    try:
        write_json(reference.cache / name, floor)
    except OSError as error:
        report(f"the floor is not kept ({error.filename}: {error.strerror}); BGAN_CACHE_DIR names another folder")
    return floor


def _compared(reference: Reference, count: int) -> int:
    return min(count, len(reference.test), len(reference.training))


def _check(samples: Samples, reference: Reference) -> None:
    shape, expected, source = samples.images.shape[1:], reference.test.shape[1:], samples.source
    if shape != expected:
        raise SamplesError(f"{source}: images are of shape {shape}, those of {reference.dataset} {expected}")
    if (count := len(samples.images)) < LEAST_SAMPLES:
        raise SamplesError(f"{source} holds {count} images; the metrics need at least {LEAST_SAMPLES}")
