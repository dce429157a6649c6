"""Measuring samples against a data set, beside the floor: the same of real images."""

import itertools
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..common.errors import ConfigError, SamplesError
from ..common.files import write_json
from .classifier import SHIPPED
from .metrics.errors import Estimate
from .metrics.table import (
    METRICS,
    TO_TRAINING_IMAGES,
    Figures,
    MetricInputs,
    Need,
    all_metrics,
    drawn,
    indistinct,
    measure,
    titles_needing,
)
from .reference import Reference, Report
from .samples import Samples

LEAST_SAMPLES = 64
_VERSION = 4  # of the metrics: another one measures cached floors again


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
    errors: dict[str, float]
    """Their standard errors over draws of the samples, the real images being these; not all have one."""
    floor: dict[str, float]
    """The same of real images: of test against training images, or of others of these against training images."""
    floor_errors: dict[str, float]
    class_histogram: list[float] | None
    preactivation_histogram: list[float] | None
    """256 shares of floor(255 p)."""
    left_out: list[str]

    @property
    def figures(self) -> Figures:
        """The metrics and their errors."""
        return Figures(self.metrics, self.errors)

    @property
    def floor_figures(self) -> Figures:
        """The floor and its errors."""
        return Figures(self.floor, self.floor_errors)

    def class_percents(self) -> str:
        """The share of each class in per cent; nothing without a classifier."""
        return " ".join(f"{100 * share:.1f}" for share in self.class_histogram or [])

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)


def evaluate_samples(
    samples: Samples,
    reference: Reference,
    *,
    seed: int = 0,
    metrics: Collection[str] = (),
    report: Report = lambda text: None,
) -> Evaluation:
    """Measure samples against a data set: these metrics by key, or all.

    Metrics of two sets compare as many samples as there are test images, at most, and are left out where those are
    few. Memorization is measured against all training images. Raises SamplesError for fewer than 64 samples or
    another shape, and ConfigError for a metric that is unknown or, of another package, broken.
    """
    keys = _chosen(metrics)
    _check(samples, reference)
    compared = _compared(reference, len(samples.images))
    inputs = MetricInputs(samples, reference.test, reference, compared=compared, seed=seed, report=report)
    figures = measure(inputs, keys)
    floor = measure_floor(reference, len(samples.images), keys, seed=seed, report=report)
    if "label_accuracy" in figures.values and (share := reference.classifier_accuracy) is not None:
        error = np.sqrt(share * (1 - share) / len(reference.test))
        floor = floor.updated("label_accuracy", Estimate(share, float(error)))
    return Evaluation(
        source=samples.source,
        dataset=reference.dataset,
        count=len(samples.images),
        compared=compared,
        seed=seed,
        metrics=figures.values,
        errors=figures.errors,
        floor=floor.values,
        floor_errors=floor.errors,
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


def no_difference(sources: Sequence[tuple[str, Figures]]) -> list[str]:
    """A line for each two sources of which figures do not differ beyond chance, and which these are."""
    lines = []
    for (one, own), (other, others) in itertools.combinations(sources, 2):
        if titles := indistinct(own, others):
            lines.append(f"no difference between {one} and {other}: {'; '.join(titles)}")
    return lines


def _chosen(metrics: Collection[str]) -> list[str]:
    known = all_metrics()
    if unknown := [key for key in metrics if key not in known]:
        raise ConfigError(f"there is no metric {unknown[0]!r}; there are {', '.join(known)}")
    return [key for key in known if key in metrics or not metrics]


def measure_floor(
    reference: Reference,
    count: int,
    keys: Collection[str] = tuple(METRICS),
    *,
    seed: int = 0,
    report: Report = lambda text: None,
) -> Figures:
    """What `evaluate_samples` would measure of `count` real images; from what is shipped or cached if it is there.

    Pairs are test and training images, which includes how the halves differ; of distances to training images they
    are other training images and these, left out where there are not twice as many. Images by themselves are the
    test images.
    """
    added = [key for key in keys if key not in METRICS]
    own = (
        _measured_floor(reference, _compared(reference, count), seed, report, added) if added else Figures({}, {})
    )
    if len(added) == len(keys):
        return own
    floor = _kept_floor(reference, count, seed, report)
    values, errors = ({**kept, **more} for kept, more in zip(floor, own, strict=True))
    chosen = {key: value for key, value in values.items() if key in keys}
    return Figures(chosen, {key: error for key, error in errors.items() if key in keys})


def _kept_floor(reference: Reference, count: int, seed: int, report: Report) -> Figures:
    """The floor of bgan's own metrics, which is shipped, cached, or measured once."""
    compared = _compared(reference, count)
    name = f"floor-{reference.digest[:16]}-{compared}-{seed}-v{_VERSION}.json"
    for folder in (SHIPPED, reference.cache):
        try:
            return Figures(**json.loads((folder / name).read_bytes()))
        except (OSError, ValueError, TypeError):
            pass
    report("measuring the floor: real images against real images, once for this data set")
    floor = _measured_floor(reference, compared, seed, report, tuple(METRICS))
    try:
        write_json(reference.cache / name, floor._asdict())
    except OSError as error:
        report(f"the floor is not kept ({error.filename}: {error.strerror}); BGAN_CACHE_DIR names another folder")
    return floor


def _measured_floor(
    reference: Reference, compared: int, seed: int, report: Report, measured: Collection[str]
) -> Figures:
    training = drawn(reference.training, 2 * compared, seed=seed)
    known, others = training[:compared], training[compared:]
    keys = [key for key in measured if key not in TO_TRAINING_IMAGES]
    images = reference.test
    if compared < len(images):  # those that are compared are the first, and a set may begin with the easy ones
        images = drawn(images, len(images), seed=seed)
    real = Samples(f"real {reference.split} images", images)
    floor = measure(MetricInputs(real, known, reference, compared=compared, seed=seed, report=report), keys)
    if len(others) < compared or not set(measured) & set(TO_TRAINING_IMAGES):
        return floor
    real = Samples("real training images", others)
    halves = measure(
        MetricInputs(real, known, reference, compared=compared, seed=seed, report=report), TO_TRAINING_IMAGES
    )
    return Figures({**floor.values, **halves.values}, {**floor.errors, **halves.errors})


def _compared(reference: Reference, count: int) -> int:
    return min(count, len(reference.test), len(reference.training))


def _check(samples: Samples, reference: Reference) -> None:
    shape, expected, source = samples.images.shape[1:], reference.test.shape[1:], samples.source
    if shape != expected:
        raise SamplesError(f"{source}: images are of shape {shape}, those of {reference.dataset} {expected}")
    if (count := len(samples.images)) < LEAST_SAMPLES:
        raise SamplesError(f"{source} holds {count} images; the metrics need at least {LEAST_SAMPLES}")
