"""The paper's claims, each with a stated rule that numbers decide."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from ...evaluation.metrics.table import format_value
from .experiments import BINARY_MODELS, EXPERIMENTS, REAL_MODEL, ExperimentModel
from .results import Results

_DBN, _SBN = BINARY_MODELS


class Comparison(NamedTuple):
    """One metric of two models, the means over their seeds, and what must hold of them."""

    title: str
    """What the evidence says before the figures."""
    key: str
    """A key of `METRICS`."""
    models: dict[str, ExperimentModel]
    """By their names in the evidence; of the real-valued one, the thresholded outputs."""
    holds: Callable[[float, float], bool]


class Claim(NamedTuple):
    """One claim: it holds where all its comparisons do."""

    text: str
    rule: str
    """The comparisons in words."""
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
        means = [
            results.mean(claim.experiment, preset, model, each.key, model.binarizations[0])
            for model in each.models.values()
        ]
        first, second = means
        if first is None or second is None:
            return Verdict(claim.text, preset, "not run", "")
        held.append(each.holds(first, second))
        figures = [f"{name} {format_value(each.key, mean)}" for name, mean in zip(each.models, means, strict=True)]
        evidence.append(f"{each.title} {', '.join(figures)}")
    verdict = "holds" if all(held) else "mixed" if any(held) else "does not hold"
    return Verdict(claim.text, preset, verdict, "; ".join(evidence))


def _similar(first: float, second: float) -> bool:
    return max(first, second) <= 1.25 * min(first, second)


def _dbn_and_sbn(title: str, key: str, holds: Callable[[float, float], bool]) -> tuple[Comparison, ...]:
    return (Comparison(title, key, {"DBN": _DBN, "SBN": _SBN}, holds),)


def _against_gp(
    objective: str, title: str, key: str, holds: Callable[[float, float], bool]
) -> tuple[Comparison, ...]:
    """An objective beside WGAN-GP, for each neuron."""
    return tuple(
        Comparison(
            f"{model.neuron_title}, {title}:",
            key,
            {objective.upper(): replace(model, objective=objective), "WGAN-GP": model},
            holds,
        )
        for model in BINARY_MODELS
    )


_NORM = tuple(
    Comparison(
        f"{model.neuron_title} {model.objective.upper()}",
        "frechet_distance",
        {"without": model, "with": replace(model, normalized=True)},
        operator.lt,
    )
    for model in EXPERIMENTS["III"].models
    if not model.normalized
)
_ARTIFACTS = tuple(
    Comparison(
        f"{model.neuron_title}, {title}:", key, {"CNN": replace(model, network="cnn"), "MLP": model}, operator.lt
    )
    for model in BINARY_MODELS
    for key, title in (
        ("isolated_pixels", "isolated pixels"),
        ("multiple_components", "several components"),
        ("pattern_divergence", "JS of patterns"),
    )
)

CLAIMS = (
    Claim(
        "DBNs and SBNs give samples of similar quality",
        "the larger Fréchet distance is at most 1.25 times the smaller",
        "I",
        _dbn_and_sbn("Fréchet distance:", "frechet_distance", _similar),
    ),
    Claim(
        "DBNs avoid preactivated outputs near the threshold: a notch at 0.5",
        "with DBNs, not with SBNs, the density at 0.5 is under 0.95 of each side's (0.40 to 0.48, 0.52 to 0.60)",
        "I",
        _dbn_and_sbn("density at 0.5 over the lower side:", "notch_depth", lambda dbn, sbn: dbn < 0.95 <= sbn),
    ),
    Claim(
        "SBNs output more values near 0 and 1 before binarization than DBNs",
        "SBN has less in [0.1, 0.9]",
        "I",
        _dbn_and_sbn("share in [0.1, 0.9]:", "middle_mass", operator.gt),
    ),
    Claim(
        "The real-valued model's histogram is more U-shaped than the SBN's",
        "the real-valued model has less in [0.1, 0.9]",
        "II",
        (
            Comparison(
                "share in [0.1, 0.9]:", "middle_mass", {"real-valued": REAL_MODEL, "SBN": _SBN}, operator.lt
            ),
        ),
    ),
    Claim(
        "WGAN and WGAN-GP give digits of similar quality",
        "for each neuron, the larger Fréchet distance is at most 1.25 times the smaller",
        "III",
        _against_gp("wgan", "Fréchet distance", "frechet_distance", _similar),
    ),
    Claim(
        "GAN suffers from mode collapse",
        "for each neuron, coverage is under half of WGAN-GP's",
        "III",
        _against_gp("gan", "coverage", "coverage", lambda gan, wgan_gp: gan < wgan_gp / 2),
    ),
    Claim(
        "The discriminator is better without batch normalization",
        "for each objective and neuron, the Fréchet distance is larger with it",
        "III",
        _NORM,
    ),
    Claim(
        "CNNs generate fewer artifacts than MLPs",
        "for each neuron: fewer isolated pixels, fewer images of several components, closer 3x3 patterns",
        "IV",
        _ARTIFACTS,
    ),
)
