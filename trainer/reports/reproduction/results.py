"""What a reproduction measured: one outcome a trained model and binarization, found by what it is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...evaluation.metrics.table import format_value
from .experiments import EXPERIMENTS, ExperimentModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentPlan:
    """How one experiment is run."""

    presets: tuple[str, ...]
    epochs: int
    seeds: int
    overrides: dict[str, Any]
    """Settings in which it differs from its presets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One trained model and what was measured of it."""

    run: str
    preset: str
    model: ExperimentModel
    epochs: int
    seed: int
    binarization: str | None
    """"threshold" or "bernoulli" for the real-valued model."""
    metrics: dict[str, float]
    preactivation_histogram: list[float] | None
    steps: int
    seconds: float
    """Time spent in training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All outcomes of a reproduction, and what they stand beside."""

    dataset: str
    count: int
    plans: dict[str, ExperimentPlan]
    """By experiment."""
    outcomes: Sequence[Outcome]
    floor: dict[str, float]
    """The metrics of real images."""
    published: dict[str, float] | None
    """Those of samples of the published code."""

    def of(
        self, experiment: str, preset: str, model: ExperimentModel, binarization: str | None = None
    ) -> list[Outcome]:
        """The outcomes of a model as that experiment trains it, one a seed."""
        epochs = self.plans[experiment].epochs
        return [
            outcome
            for outcome in self.outcomes
            if (outcome.preset, outcome.model, outcome.epochs, outcome.binarization)
            == (preset, model, epochs, binarization)
        ]

    def mean(
        self, experiment: str, preset: str, model: ExperimentModel, key: str, binarization: str | None = None
    ) -> float | None:
        """The mean of a metric over the seeds, None where it was not run or has no such metric."""
        values = _values(self.of(experiment, preset, model, binarization), key)
        return statistics.fmean(values) if values else None


def spread(outcomes: Sequence[Outcome], key: str) -> str:
    """A metric over seeds for a table: the value, or mean and standard deviation."""
    values = _values(outcomes, key)
    if not values:
        return "-"
    mean = format_value(key, statistics.fmean(values))
    return mean if len(values) == 1 else f"{mean} ± {format_value(key, statistics.stdev(values))}"


def _values(outcomes: Sequence[Outcome], key: str) -> list[float]:
    return [outcome.metrics[key] for outcome in outcomes if key in outcome.metrics]


def binarizations(model: ExperimentModel) -> tuple[str | None, ...]:
    """How a model's outputs are made binary: the real-valued one is measured both ways."""
    return ("threshold", "bernoulli") if model.neuron == "real" else (None,)


def models_of(plans: dict[str, ExperimentPlan]) -> list[tuple[str, ExperimentModel]]:
    """(experiment, model) of all that is planned."""
    return [(name, model) for name in plans for model in EXPERIMENTS[name].models]
