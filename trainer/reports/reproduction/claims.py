"""The paper's claims, each with a stated rule that numbers decide."""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ...evaluation.metrics.table import format_value
from .experiments import BINARY_MODELS, EXPERIMENTS, REAL_MODEL, ExperimentModel
from .results import Results


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
    held, evidence, is_decided = [], [], True
    for each in claim.comparisons:
        means = [results.mean(claim.experiment, preset, model, each.key) for model in each.models.values()]
        first, second = means
        if first is None or second is None:
            return Verdict(claim.text, preset, "not run", "")
        held.append(each.holds(first, second))
        errors = [results.error(claim.experiment, preset, model, each.key) for model in each.models.values()]
        is_decided &= _is_decided(each, first, second, errors)
        figures = [f"{name} {format_value(each.key, mean)}" for name, mean in zip(each.models, means, strict=True)]
        evidence.append(f"{each.title} {', '.join(figures)}")
    verdict = "holds" if all(held) else "mixed" if any(held) else "does not hold"
    verdict = verdict if is_decided else "not decided"
    return Verdict(claim.text, preset, verdict, "; ".join(evidence))


def _is_decided(comparison: Comparison, first: float, second: float, errors: Sequence[float | None]) -> bool:
    """Whether it comes out alike with either mean moved by two standard errors of the difference."""
    known = [error for error in errors if error is not None]
    if len(known) < len(errors):
        return False
    move = 2 * math.hypot(*known)
    moved = [(first - move, second), (first + move, second), (first, second - move), (first, second + move)]
    return len({comparison.holds(*means) for means in [(first, second), *moved]}) == 1


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
        "for each neuron, coverage is under half of WGAN-GP's",
        "III",
        _by_neuron({"coverage": "coverage"}, "objective", "gan", lambda gan, wgan_gp: gan < wgan_gp / 2),
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
