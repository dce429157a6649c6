"""The paper's claims, each with a stated rule that numbers decide."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

from ...evaluation.metrics.table import format_value
from .experiments import ExperimentModel
from .results import Results, binarizations

HOLDS = "holds"
FAILS = "does not hold"
MIXED = "mixed"
NOT_RUN = "not run"

_SIMILAR = 1.25
_NOTCH = 0.95
_DBN, _SBN, _REAL = ExperimentModel(neuron="dbn"), ExperimentModel(neuron="sbn"), ExperimentModel(neuron="real")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One metric of two models, the means over their seeds, and what must hold of them."""

    title: str
    """What the evidence says before the figures."""
    key: str
    """A key of `METRICS`."""
    first: tuple[str, ExperimentModel]
    second: tuple[str, ExperimentModel]
    """A name for the evidence, and the model; of the real-valued one, the thresholded outputs."""
    holds: Callable[[float, float], bool]

    def evidence(self, first: float, second: float) -> str:
        """The two figures, named."""
        figures = (
            f"{name} {format_value(self.key, value)}"
            for (name, _), value in ((self.first, first), (self.second, second))
        )
        return f"{self.title} {', '.join(figures)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim: it holds where all its comparisons do."""

    text: str
    rule: str
    """The comparisons in words."""
    experiment: str
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the numbers say of a claim under one preset."""

    claim: Claim
    preset: str
    verdict: str
    evidence: str


def verdicts(results: Results) -> list[Verdict]:
    """The verdict on each claim, by preset, for the experiments that were planned."""
    return [
        _verdict(results, claim, preset)
        for claim in CLAIMS
        if claim.experiment in results.plans
        for preset in results.plans[claim.experiment].presets
    ]


def _verdict(results: Results, claim: Claim, preset: str) -> Verdict:
    held, evidence = [], []
    for comparison in claim.comparisons:
        first, second = (
            results.mean(claim.experiment, preset, model, comparison.key, binarizations(model)[0])
            for _, model in (comparison.first, comparison.second)
        )
        if first is None or second is None:
            return Verdict(claim=claim, preset=preset, verdict=NOT_RUN, evidence="")
        held.append(comparison.holds(first, second))
        evidence.append(comparison.evidence(first, second))
    verdict = HOLDS if all(held) else MIXED if any(held) else FAILS
    return Verdict(claim=claim, preset=preset, verdict=verdict, evidence="; ".join(evidence))


def _similar(first: float, second: float) -> bool:
    return max(first, second) <= _SIMILAR * min(first, second)


def _notched(first: float, second: float) -> bool:
    return first < _NOTCH <= second


def _collapsed(first: float, second: float) -> bool:
    return first < second / 2


def _objective_against_gp(
    objective: str, title: str, key: str, holds: Callable[[float, float], bool]
) -> tuple[Comparison, ...]:
    """An objective beside WGAN-GP, for each neuron."""
    return tuple(
        Comparison(
            title=f"{neuron.upper()}, {title}:",
            key=key,
            first=(objective.upper(), ExperimentModel(neuron=neuron, objective=objective)),
            second=("WGAN-GP", ExperimentModel(neuron=neuron)),
            holds=holds,
        )
        for neuron in ("dbn", "sbn")
    )


_NORM = tuple(
    Comparison(
        title=f"{neuron.upper()} {objective.upper()}",
        key="frechet_distance",
        first=("without", ExperimentModel(neuron=neuron, objective=objective)),
        second=("with", ExperimentModel(neuron=neuron, objective=objective, normalized=True)),
        holds=operator.lt,
    )
    for objective in ("gan", "wgan", "wgan-gp")
    for neuron in ("dbn", "sbn")
)
_ARTIFACTS = tuple(
    Comparison(
        title=f"{neuron.upper()}, {title}:",
        key=key,
        first=("CNN", ExperimentModel(neuron=neuron, network="cnn")),
        second=("MLP", ExperimentModel(neuron=neuron)),
        holds=operator.lt,
    )
    for neuron in ("dbn", "sbn")
    for key, title in (
        ("isolated_pixels", "isolated pixels"),
        ("multiple_components", "several components"),
        ("pattern_divergence", "JS of patterns"),
    )
)

CLAIMS = (
    Claim(
        text="DBNs and SBNs give samples of similar quality",
        rule="the larger Fréchet distance is at most 1.25 times the smaller",
        experiment="I",
        comparisons=(
            Comparison(
                title="Fréchet distance:",
                key="frechet_distance",
                first=("DBN", _DBN),
                second=("SBN", _SBN),
                holds=_similar,
            ),
        ),
    ),
    Claim(
        text="DBNs avoid preactivated outputs near the threshold: a notch at 0.5",
        rule=(
            "with DBNs, not with SBNs, the density at 0.5 is under 0.95 of each side's "
            "(0.40 to 0.48 and 0.52 to 0.60)"
        ),
        experiment="I",
        comparisons=(
            Comparison(
                title="density at 0.5 over the lower side:",
                key="notch_depth",
                first=("DBN", _DBN),
                second=("SBN", _SBN),
                holds=_notched,
            ),
        ),
    ),
    Claim(
        text="SBNs output more values near 0 and 1 before binarization than DBNs",
        rule="SBN has less in [0.1, 0.9]",
        experiment="I",
        comparisons=(
            Comparison(
                title="share in [0.1, 0.9]:",
                key="middle_mass",
                first=("DBN", _DBN),
                second=("SBN", _SBN),
                holds=operator.gt,
            ),
        ),
    ),
    Claim(
        text="The real-valued model's histogram is more U-shaped than the SBN's",
        rule="the real-valued model has less in [0.1, 0.9]",
        experiment="II",
        comparisons=(
            Comparison(
                title="share in [0.1, 0.9]:",
                key="middle_mass",
                first=("real-valued", _REAL),
                second=("SBN", _SBN),
                holds=operator.lt,
            ),
        ),
    ),
    Claim(
        text="WGAN and WGAN-GP give digits of similar quality",
        rule="for each neuron, the larger Fréchet distance is at most 1.25 times the smaller",
        experiment="III",
        comparisons=_objective_against_gp("wgan", "Fréchet distance", "frechet_distance", _similar),
    ),
    Claim(
        text="GAN suffers from mode collapse",
        rule="for each neuron, coverage is under half of WGAN-GP's",
        experiment="III",
        comparisons=_objective_against_gp("gan", "coverage", "coverage", _collapsed),
    ),
    Claim(
        text="The discriminator is better without batch normalization",
        rule="for each objective and neuron, the Fréchet distance is larger with it",
        experiment="III",
        comparisons=_NORM,
    ),
    Claim(
        text="CNNs generate fewer artifacts than MLPs",
        rule="for each neuron: fewer isolated pixels, fewer images of several components, closer 3x3 patterns",
        experiment="IV",
        comparisons=_ARTIFACTS,
    ),
)
