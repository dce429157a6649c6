"""What a reproduction measured: one outcome a trained model and binarization, found by what it is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Any

from ...evaluation.metrics.errors import Estimate
from ...evaluation.metrics.table import format_estimate
from .experiments import ExperimentModel, ExperimentPlan


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
    steps: int
    seconds: float
    errors: dict[str, float] = field(default_factory=dict)
    """Standard errors over draws of samples; those of trainings are not in them."""
    preactivation_histogram: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All outcomes of a reproduction, and what they are compared with."""

    made: str
    """When, and with what machine and versions, in words."""
    dataset: str
    count: int
    classifier_accuracy: float | None
    """Of the classifier whose features are compared, on test images; None without labels."""
    plans: dict[str, ExperimentPlan]
    floor: dict[str, float]
    """The metrics of real images."""
    published_samples: dict[str, float] | None
    """The metrics of samples of the published code."""
    outcomes: Sequence[Outcome]

    def of(
        self, experiment: str, preset: str, model: ExperimentModel, binarization: str | None = None
    ) -> list[Outcome]:
        """The outcomes of a model as that experiment trains it, one a seed; None: its first binarization."""
        wanted = (preset, model, self.plans[experiment].epochs, binarization or model.binarizations[0])
        kind = attrgetter("preset", "model", "epochs", "binarization")
        return [each for each in self.outcomes if kind(each) == wanted]

    def mean(self, experiment: str, preset: str, model: ExperimentModel, key: str) -> Estimate | None:
        """The mean of a metric over the seeds, None where it was not run or has no such metric.

        One seed says nothing of its error.
        """
        values = _values(self.of(experiment, preset, model), key)
        if not values:
            return None
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
        return Estimate(statistics.fmean(values), error)

    def to_dict(self) -> dict[str, Any]:
        """All but the histograms, ready for JSON."""
        content = asdict(self)
        for outcome in content["outcomes"]:
            del outcome["preactivation_histogram"]
        return content

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Results:
        """The results that `to_dict` gave. Raises KeyError or TypeError for anything else."""
        outcomes = [
            Outcome(**{**outcome, "model": ExperimentModel(**outcome["model"])}) for outcome in content["outcomes"]
        ]
        plans = {name: ExperimentPlan(**plan) for name, plan in content["plans"].items()}
        return cls(**{**content, "plans": plans, "outcomes": outcomes})


def spread(outcomes: Sequence[Outcome], key: str) -> str:
    """A metric over seeds for a table: mean and standard deviation, or one value and its standard error."""
    values = _values(outcomes, key)
    if not values:
        return "-"
    error = statistics.stdev(values) if len(values) > 1 else outcomes[0].errors.get(key)
    return format_estimate(key, Estimate(statistics.fmean(values), error))


def _values(outcomes: Sequence[Outcome], key: str) -> list[float]:
    return [outcome.metrics[key] for outcome in outcomes if key in outcome.metrics]
