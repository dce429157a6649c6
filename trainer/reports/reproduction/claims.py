"""The paper's claims, each with a stated rule that numbers decide, where they differ by more than their errors."""

import itertools
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ...evaluation.metrics.errors import Estimate
from ...evaluation.metrics.table import format_estimate
from .experiments import BINARY_MODELS, EXPERIMENTS, REAL_MODEL, ExperimentModel
from .results import Results

_ERRORS = 2.0  # standard errors that a mean may be off
_STEPS = 9  # of each mean between its limits, at which a rule is tried
_COLLAPSED_BITS = 0.5
NOT_DECIDED = "not decided"


class Comparison(NamedTuple):
    """One metric of two models, its means over their seeds, and what must hold of them."""

    title: str
    key: str
    """A key of `METRICS`."""
    models: dict[str, ExperimentModel]
    """By their names in the evidence; of the real-valued one, the thresholded outputs."""
    holds: Callable[[float, float], bool]


class Claim(NamedTuple):
    """One claim: it holds where all its comparisons, which the rule says in words, do."""

    text: str
    rule: str
    experiment: str
    comparisons: tuple[Comparison, ...]


class Verdict(NamedTuple):
    """What the numbers say of a claim under one preset."""

    claim: str
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
    for each in claim.comparisons:
        first, second = (results.mean(claim.experiment, preset, model, each.key) for model in each.models.values())
        if first is None or second is None:
            return Verdict(claim.text, preset, "not run", "")
        held.append(_is_held(each.holds, first, second))
        means = zip(each.models, (first, second), strict=True)
        figures = [f"{name} {format_estimate(each.key, mean)}" for name, mean in means]
        evidence.append(f"{each.title} {', '.join(figures)}")
    return Verdict(claim.text, preset, _in_words(held), "; ".join(evidence))


def _is_held(holds: Callable[[float, float], bool], first: Estimate, second: Estimate) -> bool | None:
    """Whether it holds wherever the means may truly lie; None where that is not decided, as by one seed."""
    if first.error is None or second.error is None:
        return None
    ranges = [
        np.linspace(each.value - _ERRORS * each.error, each.value + _ERRORS * each.error, _STEPS)
        for each in (first, second)
        if each.error is not None
    ]
    found = {bool(holds(*values)) for values in itertools.product(*ranges)}
    return found.pop() if len(found) == 1 else None


def _in_words(held: list[bool | None]) -> str:
    if {True, False} <= set(held):
        return "mixed"
    if None in held:
        return NOT_DECIDED
    return "holds" if all(held) else "does not hold"


def _similar(first: float, second: float) -> bool:
    return max(first, second) <= 1.25 * min(first, second)


def _has_notch(dbn: float, sbn: float) -> bool:
    return dbn < 0.95 <= sbn


def _by_neuron(
    titles: dict[str, str], setting: str, value: str, holds: Callable[[float, float], bool]
) -> tuple[Comparison, ...]:
    """Metrics, by key, of the binary models with that value of a setting, beside those with their own."""
    changed: dict[str, Any] = {setting: value}
    return tuple(
        Comparison(
            f"{model.neuron_title}, {title}:",
            key,
            {value.upper(): replace(model, **changed), getattr(model, setting).upper(): model},
            holds,
        )
        for model in BINARY_MODELS
        for key, title in titles.items()
    )


_DBN_AND_SBN = {model.neuron_title: model for model in BINARY_MODELS}
_REAL_AND_SBN = {model.neuron_title: model for model in (REAL_MODEL, BINARY_MODELS[1])}

CLAIMS = (
    Claim(
        "DBNs and SBNs give samples of similar quality",
        "the larger Fréchet distance is at most 1.25 times the smaller",
        "I",
        (Comparison("Fréchet distance:", "frechet_distance", _DBN_AND_SBN, _similar),),
    ),
    Claim(
        "DBNs avoid preactivated outputs near the threshold: a notch at 0.5",
        "with DBNs, not with SBNs, the density at 0.5 is under 0.95 of each side's (0.40 to 0.48, 0.52 to 0.60)",
        "I",
        (Comparison("density at 0.5 over the lower side:", "notch_depth", _DBN_AND_SBN, _has_notch),),
    ),
    Claim(
        "SBNs output more values near 0 and 1 before binarization than DBNs",
        "SBN has less in [0.1, 0.9]",
        "I",
        (Comparison("share in [0.1, 0.9]:", "middle_mass", _DBN_AND_SBN, operator.gt),),
    ),
    Claim(
        "The real-valued model's histogram is more U-shaped than the SBN's",
        "the real-valued model has less in [0.1, 0.9]",
        "II",
        (Comparison("share in [0.1, 0.9]:", "middle_mass", _REAL_AND_SBN, operator.lt),),
    ),
    Claim(
        "WGAN and WGAN-GP give digits of similar quality",
        "for each neuron, the larger Fréchet distance is at most 1.25 times the smaller",
        "III",
        _by_neuron({"frechet_distance": "Fréchet distance"}, "objective", "wgan", _similar),
    ),
    Claim(
        "GAN suffers from mode collapse",
        f"for each neuron, recall is under half of WGAN-GP's, and class entropy {_COLLAPSED_BITS} bits lower",
        "III",
        (
            *_by_neuron({"recall": "recall"}, "objective", "gan", lambda gan, wgan_gp: gan < wgan_gp / 2),
            *_by_neuron(
                {"class_entropy": "class entropy"},
                "objective",
                "gan",
                lambda gan, wgan_gp: gan < wgan_gp - _COLLAPSED_BITS,
            ),
        ),
    ),
    Claim(
        "The discriminator is better without batch normalization",
        "for each objective and neuron, the Fréchet distance is larger with it",
        "III",
        tuple(
            Comparison(
                f"{model.neuron_title} {model.objective.upper()}",
                "frechet_distance",
                {"without": model, "with": replace(model, normalized=True)},
                operator.lt,
            )
            for model in EXPERIMENTS["III"].models
            if not model.normalized
        ),
    ),
    Claim(
        "CNNs generate fewer artifacts than MLPs",
        "for each neuron: fewer isolated pixels, fewer images of several components, closer 3x3 patterns",
        "IV",
        _by_neuron(
            {
                "isolated_pixels": "isolated pixels",
                "multiple_components": "several components",
                "pattern_divergence": "JS of patterns",
            },
            "network",
            "cnn",
            operator.lt,
        ),
    ),
)
