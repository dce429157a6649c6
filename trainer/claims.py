"""The paper's claims, each with a stated rule that numbers decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .experiments import Model
from .metrics import format_value
from .results import Results

HOLDS = "holds"
FAILS = "does not hold"
MIXED = "mixed"
NOT_RUN = "not run"

_SIMILAR = 1.25
_DBN, _SBN, _REAL = Model(neuron="dbn"), Model(neuron="sbn"), Model(neuron="real")

# A test gives None where what it needs was not run, else (whether it holds, the figures).
Test = Callable[[Results, str], "list[tuple[bool, str]] | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim."""

    text: str
    rule: str
    """When it is said to hold."""
    experiment: str
    test: Test


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the numbers say of a claim under one preset."""

    claim: Claim
    preset: str
    verdict: str
    evidence: str


def verdicts(results: Results) -> list[Verdict]:
    """The verdict on each claim, by preset, for the experiments that were planned."""
    found = []
    for claim in CLAIMS:
        if claim.experiment not in results.plans:
            continue
        for preset in results.plans[claim.experiment].presets:
            parts = claim.test(results, preset)
            found.append(
                Verdict(
                    claim=claim,
                    preset=preset,
                    verdict=NOT_RUN if parts is None else _joined([holds for holds, _ in parts]),
                    evidence="" if parts is None else "; ".join(evidence for _, evidence in parts),
                )
            )
    return found


def _joined(parts: list[bool]) -> str:
    if all(parts):
        return HOLDS
    return MIXED if any(parts) else FAILS


def _values(
    results: Results, experiment: str, preset: str, key: str, *models: tuple[Model, str | None]
) -> list[float] | None:
    values = [results.mean(experiment, preset, model, key, binarization) for model, binarization in models]
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None


def _pair(key: str, first: str, a: float, second: str, b: float) -> str:
    return f"{first} {format_value(key, a)}, {second} {format_value(key, b)}"


def _similar_quality(results: Results, preset: str) -> list[tuple[bool, str]] | None:
    key = "frechet_distance"
    values = _values(results, "I", preset, key, (_DBN, None), (_SBN, None))
    if values is None:
        return None
    a, b = values
    return [(max(a, b) <= _SIMILAR * min(a, b), "Frechet distance: " + _pair(key, "DBN", a, "SBN", b))]


def _notch(results: Results, preset: str) -> list[tuple[bool, str]] | None:
    key = "notch_depth"
    values = _values(results, "I", preset, key, (_DBN, None), (_SBN, None))
    if values is None:
        return None
    a, b = values
    return [(a < 0.95 and b >= 0.95, "density at 0.5 over the lower side: " + _pair(key, "DBN", a, "SBN", b))]


def _middle(results: Results, preset: str) -> list[tuple[bool, str]] | None:
    key = "middle_mass"
    values = _values(results, "I", preset, key, (_DBN, None), (_SBN, None))
    if values is None:
        return None
    a, b = values
    return [(b < a, "share in [0.1, 0.9]: " + _pair(key, "DBN", a, "SBN", b))]


def _u_shaped(results: Results, preset: str) -> list[tuple[bool, str]] | None:
    key = "middle_mass"
    values = _values(results, "II", preset, key, (_REAL, "threshold"), (_SBN, None))
    if values is None:
        return None
    a, b = values
    return [(a < b, "share in [0.1, 0.9]: " + _pair(key, "real-valued", a, "SBN", b))]


def _wgan_alike(results: Results, preset: str) -> list[tuple[bool, str]] | None:
    return _by_neuron(
        results,
        preset,
        "frechet_distance",
        "wgan",
        lambda other, gp: max(other, gp) <= _SIMILAR * min(other, gp),
        "Frechet distance",
    )


def _gan_collapses(results: Results, preset: str) -> list[tuple[bool, str]] | None:
    return _by_neuron(results, preset, "coverage", "gan", lambda other, gp: other < gp / 2, "coverage")


def _by_neuron(
    results: Results,
    preset: str,
    key: str,
    objective: str,
    holds: Callable[[float, float], bool],
    title: str,
) -> list[tuple[bool, str]] | None:
    """An objective against WGAN-GP, for each neuron."""
    parts = []
    for neuron in ("dbn", "sbn"):
        models = (Model(neuron=neuron, objective=objective), None), (Model(neuron=neuron), None)
        values = _values(results, "III", preset, key, *models)
        if values is None:
            return None
        figures = _pair(key, objective.upper(), values[0], "WGAN-GP", values[1])
        parts.append((holds(*values), f"{neuron.upper()}, {title}: {figures}"))
    return parts


def _norm_hurts(results: Results, preset: str) -> list[tuple[bool, str]] | None:
    key = "frechet_distance"
    parts = []
    for objective in ("gan", "wgan", "wgan-gp"):
        for neuron in ("dbn", "sbn"):
            bare = Model(neuron=neuron, objective=objective)
            normed = Model(neuron=neuron, objective=objective, normalized=True)
            values = _values(results, "III", preset, key, (bare, None), (normed, None))
            if values is None:
                return None
            figures = _pair(key, "without", values[0], "with", values[1])
            parts.append((values[1] > values[0], f"{neuron.upper()} {objective.upper()} {figures}"))
    return parts


def _fewer_artifacts(results: Results, preset: str) -> list[tuple[bool, str]] | None:
    parts = []
    for neuron in ("dbn", "sbn"):
        for key, title in (
            ("isolated_pixels", "isolated pixels"),
            ("multiple_components", "images of several components"),
            ("pattern_divergence", "JS of patterns"),
        ):
            models = (Model(neuron=neuron, network="cnn"), None), (Model(neuron=neuron), None)
            values = _values(results, "IV", preset, key, *models)
            if values is None:
                return None
            figures = _pair(key, "CNN", values[0], "MLP", values[1])
            parts.append((values[0] < values[1], f"{neuron.upper()}, {title}: {figures}"))
    return parts


CLAIMS = (
    Claim(
        text="DBNs and SBNs give samples of similar quality",
        rule="the larger Frechet distance is at most 1.25 times the smaller",
        experiment="I",
        test=_similar_quality,
    ),
    Claim(
        text="DBNs avoid preactivated outputs around the threshold: a notch at 0.5",
        rule=(
            "with DBNs, not with SBNs, the density at 0.5 is under 0.95 of that of each side "
            "(0.40 to 0.48 and 0.52 to 0.60)"
        ),
        experiment="I",
        test=_notch,
    ),
    Claim(
        text="SBNs output more preactivated values close to 0 and 1 than DBNs",
        rule="the SBN model has less in [0.1, 0.9]",
        experiment="I",
        test=_middle,
    ),
    Claim(
        text="The histogram of the real-valued model is more U-shaped than that of the SBN model",
        rule="the real-valued model has less in [0.1, 0.9]",
        experiment="II",
        test=_u_shaped,
    ),
    Claim(
        text="WGAN gives digits of similar quality as WGAN-GP",
        rule="for each neuron, the larger Frechet distance is at most 1.25 times the smaller",
        experiment="III",
        test=_wgan_alike,
    ),
    Claim(
        text="GAN suffers from mode collapse",
        rule="for each neuron, coverage is under half of that of WGAN-GP",
        experiment="III",
        test=_gan_collapses,
    ),
    Claim(
        text="Batch normalization in the discriminator is better left out",
        rule="for each objective and neuron, the Frechet distance is larger with it",
        experiment="III",
        test=_norm_hurts,
    ),
    Claim(
        text="CNNs generate fewer artifacts than MLPs",
        rule="for each neuron: fewer isolated pixels, fewer images of several components, closer 3x3 patterns",
        experiment="IV",
        test=_fewer_artifacts,
    ),
)
