"""What a report shows, in order: text, tables and figures as data. Nothing is drawn or written here."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ...evaluation.metrics.table import METRICS, format_value
from .claims import CLAIMS, verdicts
from .experiments import (
    BINARY_MODELS,
    COMPARED_PRESETS,
    EXPERIMENTS,
    OBJECTIVE_ROWS,
    PAPER_EPOCHS,
    REAL_MODEL,
    ExperimentModel,
)
from .results import Outcome, Results, spread

_QUALITY = (
    *("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage", "inception_score"),
    *("missing_classes", "two_sample_accuracy", "nearest_distance"),
)
_ARTIFACTS = ("isolated_pixels", "components", "multiple_components", "holes", "pattern_divergence")
_PREACTIVATIONS = ("first_bin", "last_bin", "middle_mass", "notch_ratio", "notch_depth", "preactivation_entropy")
_TABLES = {
    "I": (_QUALITY, _PREACTIVATIONS),
    "II": (_QUALITY, _PREACTIVATIONS),
    "III": ((*_QUALITY[:8], "class_entropy", "unique_share"),),
    "IV": ((*_ARTIFACTS, *_QUALITY),),
}
"""The columns of each experiment's tables."""
# First and last bin, read off the histogram that the published code's site shows (the paper's Figure 4).
_FIGURE_4 = {"DBN": (0.099, 0.0), "SBN": (0.688, 0.00624), "real-valued": (0.754, 0.0509)}


class Table(NamedTuple):
    """A table of text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Column(NamedTuple):
    """A column of a grid: images of a model, or the probabilities that they were made from."""

    title: str
    model: ExperimentModel
    binarization: str | None = None
    is_preactivated: bool = False


class Grid(NamedTuple):
    """Samples of models in rows and columns; None: not run."""

    file: str
    caption: str
    columns: Sequence[Column]
    rows: dict[str, list[Outcome | None]]


class Histograms(NamedTuple):
    """Preactivated outputs: a panel a preset, the shares of 256 bins for each model."""

    file: str
    panels: dict[str, dict[str, list[float]]]
    caption: str = "Histograms of preactivated outputs"


_BOTH_WAYS = tuple(
    Column(f"{model.neuron_title}{', preactivated' if is_preactivated else ''}", model, None, is_preactivated)
    for model in BINARY_MODELS
    for is_preactivated in (False, True)
)
_GRIDS = {
    "I": ("Samples and preactivated outputs of DBN and SBN models", _BOTH_WAYS),
    "II": (
        "The real-valued model: raw, thresholded and sampled",
        (
            Column("raw prediction", REAL_MODEL, "threshold", True),
            Column("hard thresholding", REAL_MODEL, "threshold"),
            Column("Bernoulli sampling", REAL_MODEL, "bernoulli"),
        ),
    ),
    "IV": ("Samples of MLP and CNN models", [Column(model.title, model) for model in EXPERIMENTS["IV"].models]),
}
Part = str | Table | Grid | Histograms
"""Text is Markdown."""


def report_parts(results: Results) -> list[Part]:
    """The whole report. A row stands only in the first of several tables with the same columns."""
    parts: list[Part] = ["# BinaryGAN, reproduced", _introduction(results), *_claims(results)]
    shown: set[tuple[Sequence[str], str, str | None]] = set()
    for name, plan in results.plans.items():
        experiment = EXPERIMENTS[name]
        presets = " and ".join(f"`{preset}`" for preset in plan.presets)
        overrides = "".join(f", `{key}` = {value}" for key, value in plan.overrides.items())
        conditions = f"{presets}, {plan.epochs} epochs, {plan.seeds} seed(s){overrides}."
        parts += [f"## {experiment.title}", experiment.question, conditions]
        parts += [*_figures(results, name), experiment.note, *_tables(results, name, shown)]
    parts += ["## What was not run", _not_run(results)]
    return [part for part in parts if part]


def _introduction(results: Results) -> str:
    accuracy = results.classifier_accuracy
    accurate = "" if accuracy is None else f" ({100 * accuracy:.2f} % accurate on its test images)"
    return (
        f"`bgan reproduce`, {results.made}; data set `{results.dataset}`. Each row is {results.count} samples, "
        "measured by `bgan evaluate` against at most as many real test images, with the features of a classifier "
        f"of the data set{accurate}. The floor compares real test images with real training images. The preset "
        "`paper` is the paper's text with the faults of its code corrected; `published` is what the published "
        "code computes, which trains on the test images too (`bgan presets`). Several seeds: mean ± standard "
        "deviation; one: ± the standard error over draws of samples, where it was measured."
    )


def _claims(results: Results) -> list[Part]:
    rows = [[each.claim, f"`{each.preset}`", f"**{each.verdict}**", each.evidence] for each in verdicts(results)]
    rules = [f"- {claim.text}: {claim.rule}." for claim in CLAIMS if claim.experiment in results.plans]
    return [
        "## The paper's claims",
        Table(["claim", "preset", "verdict", "figures"], rows),
        "A claim holds if:",
        "\n".join(rules),
        "Not decided: the rule both holds and fails within two standard errors (±) of the means over seeds, or "
        "there is one seed, whose error is not known. Mixed: parts of the claim that are decided disagree.",
    ]


def _figures(results: Results, name: str) -> list[Part]:
    """Samples of each model's first seed, and histograms where there is a table of preactivations."""
    presets, number = results.plans[name].presets, list(EXPERIMENTS).index(name) + 1

    def row(preset: str, columns: Sequence[Column], **changes: Any) -> list[Outcome | None]:
        found = [results.of(name, preset, replace(each.model, **changes), each.binarization) for each in columns]
        return [outcomes[0] if outcomes else None for outcomes in found]

    if name == "III":
        grids: list[Part] = []
        for preset in presets:
            rows = {title: row(preset, _BOTH_WAYS, **changes) for title, changes in OBJECTIVE_ROWS.items()}
            if any(itertools.chain(*rows.values())):
                caption = f"Objectives, preset {preset} (the paper's Figure 8)"
                grids.append(Grid(f"experiment-{number}-{preset}.png", caption, _BOTH_WAYS, rows))
        return grids
    caption, columns = _GRIDS[name]
    rows = {preset: row(preset, columns) for preset in presets}
    grid = Grid(f"experiment-{number}-samples.png", caption, columns, rows)
    if _PREACTIVATIONS not in _TABLES[name]:
        return [grid]
    panels = {
        preset: {
            model.neuron_title: outcome.preactivation_histogram
            for model in EXPERIMENTS[name].models
            for outcome in results.of(name, preset, model)[:1]
        }
        for preset in presets
    }
    return [grid, Histograms(f"experiment-{number}-histogram.png", panels)]


def _tables(results: Results, name: str, shown: set[tuple[Sequence[str], str, str | None]]) -> list[Part]:
    """The tables of an experiment, without rows that are `shown` already; theirs are added to it."""
    tables: list[Part] = []
    repeated: dict[str, None] = {}
    for keys in _TABLES[name]:
        found = [
            results.of(name, preset, model, binarization)
            for preset in results.plans[name].presets
            for model in EXPERIMENTS[name].models
            for binarization in model.binarizations
        ]
        trained = {(keys, each[0].run, each[0].binarization): each for each in found if each}
        repeated |= dict.fromkeys(each[0].model.neuron_title for key, each in trained.items() if key in shown)
        tables.append(_table(results, keys, [each for key, each in trained.items() if key not in shown]))
        shown.update(trained)
    return [*tables, f"For {' and '.join(repeated)} see the same tables above." if repeated else ""]


def _table(results: Results, keys: Sequence[str], models: Sequence[Sequence[Outcome]]) -> Table:
    """Models by metrics: under the paper's figure and the published samples, over the floor."""
    rows = []
    if keys == _PREACTIVATIONS:
        neurons = {outcomes[0].model.neuron_title for outcomes in models}
        rows += [
            [f"the paper's Figure 4, {title}", *_values(keys, dict(zip(keys, bins, strict=False)))]
            for title, bins in _FIGURE_4.items()
            if title in neurons
        ]
    rows.append(["published code: MLP, DBN, WGAN-GP", *_values(keys, results.published_samples or {})])
    for outcomes in models:
        first, *_ = outcomes
        way = f", {first.binarization}" if first.binarization else ""
        rows.append([f"`{first.preset}` {first.model.title}{way}", *(spread(outcomes, key) for key in keys)])
    rows.append(["floor: real images", *_values(keys, results.floor)])
    kept = [row for row in rows if any(value != "-" for value in row[1:])]
    return Table(["", *(METRICS[key].title for key in keys)], kept)


def _values(keys: Sequence[str], figures: dict[str, float]) -> list[str]:
    return [format_value(key, figures.get(key)) for key in keys]


def _not_run(results: Results) -> str:
    planned = results.plans.items()
    missing = [
        f"{name}, `{preset}`: {model.title} ({plan.seeds - len(found)} of {plan.seeds} seeds)"
        for name, plan in planned
        for preset in plan.presets
        for model in EXPERIMENTS[name].models
        if len(found := results.of(name, preset, model)) < plan.seeds
    ]
    missing += [
        f"{name}, `{preset}`" for name, plan in planned for preset in sorted({*COMPARED_PRESETS} - {*plan.presets})
    ]
    missing += [
        f"{name}: {plan.epochs} of the paper's {PAPER_EPOCHS} epochs"
        for name, plan in planned
        if plan.epochs < PAPER_EPOCHS
    ]
    missing += [name for name in EXPERIMENTS if name not in results.plans]
    return "\n".join(f"- Experiment {each}" for each in missing) or "Everything planned was run."
