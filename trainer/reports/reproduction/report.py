"""The report of a reproduction: Markdown, the same as one HTML page, and its figures."""

from __future__ import annotations

import base64
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ...common.files import write_atomically, write_json
from ...config.presets import PRESETS
from ...evaluation.generator import TrainedGenerator
from ...evaluation.metrics.table import METRICS, format_value
from ...training.run import Run
from ..figures import Panel, grid_figure, histogram_figure
from .claims import CLAIMS, verdicts
from .experiments import EXPERIMENTS, OBJECTIVE_ROWS, PAPER_EPOCHS, ExperimentModel
from .results import Outcome, Results, binarizations, spread

_SHOWN = 64
_QUALITY = (
    "frechet_distance",
    "kernel_distance",
    "precision",
    "recall",
    "density",
    "coverage",
    "inception_score",
    "missing_classes",
    "two_sample_accuracy",
    "nearest_distance",
)
_ARTIFACTS = ("isolated_pixels", "components", "multiple_components", "holes", "pattern_divergence")
_PREACTIVATIONS = ("first_bin", "last_bin", "middle_mass", "notch_ratio", "notch_depth", "preactivation_entropy")
# First and last bin, read off the histogram that the published code's site shows (the paper's Figure 4).
_FIGURE_4 = {"DBN": (0.099, 0.0), "SBN": (0.688, 0.00624), "real-valued": (0.754, 0.0509)}
_FIGURE_COLUMNS = ("DBN", "DBN, preactivated", "SBN", "SBN, preactivated")
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;font-size:85%;margin:1em 0;display:block;overflow-x:auto}"
    "td,th{border:1px solid #ccc;padding:.25em .6em;text-align:right}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}code{background:#f3f3f3;padding:0 .2em}"
)


def write_report(results: Results, folder: Path, classifier_accuracy: float | None) -> Path:
    """Write report.md, report.html, report.json and figures/ into the folder; report.md is returned."""
    writer = _Writer(results, folder, classifier_accuracy)
    text = writer.markdown()
    path = folder / "report.md"
    write_atomically(path, text.encode())
    write_atomically(folder / "report.html", to_html(text, folder).encode())
    write_json(folder / "report.json", writer.numbers())
    return path


def to_html(markdown: str, folder: Path) -> str:
    """One self-contained page: the pictures that the Markdown names, relative to `folder`, are inside it."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(markdown)

    def embedded(match: re.Match[str]) -> str:
        content = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{content}"'

    body = re.sub(r'src="([^":]+\.png)"', embedded, body)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>BinaryGAN, reproduced</title>\n'
        f"<style>{_STYLE}</style>\n{body}</html>\n"
    )


class _Writer:
    """Builds the report, section by section."""

    def __init__(self, results: Results, folder: Path, classifier_accuracy: float | None) -> None:
        self._results = results
        self._folder = folder
        self._accuracy = classifier_accuracy
        self._verdicts = verdicts(results)
        self._sections = {
            "I": self._experiment_i,
            "II": self._experiment_ii,
            "III": self._experiment_iii,
            "IV": self._experiment_iv,
        }

    def numbers(self) -> dict[str, object]:
        """Everything that the tables show, and the verdicts."""
        return {
            "dataset": self._results.dataset,
            "floor": self._results.floor,
            "published_samples": self._results.published,
            "verdicts": [
                {
                    "claim": verdict.claim.text,
                    "preset": verdict.preset,
                    "verdict": verdict.verdict,
                    "evidence": verdict.evidence,
                }
                for verdict in self._verdicts
            ],
            "outcomes": [
                {
                    "run": outcome.run,
                    "binarization": outcome.binarization,
                    "steps": outcome.steps,
                    "seconds": outcome.seconds,
                    "metrics": outcome.metrics,
                }
                for outcome in self._results.outcomes
            ],
        }

    def markdown(self) -> str:
        parts = ["# BinaryGAN, reproduced", self._introduction(), self._claims()]
        for name in self._results.plans:
            parts += [f"## {EXPERIMENTS[name].title}", EXPERIMENTS[name].question, self._conditions(name)]
            parts += self._sections[name]()
        parts += ["## What was not run", self._not_run(), "## Runs", self._runs()]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _introduction(self) -> str:
        results = self._results
        versions = ", ".join(f"{name} {version(name)}" for name in ("bgan", "torch", "numpy"))
        classifier = "a classifier of the data set"
        if self._accuracy is not None:
            classifier += f" ({100 * self._accuracy:.2f} % accurate on its test images)"
        return (
            f"`bgan reproduce`, {datetime.now(UTC).date()}, {platform.machine()}, {versions}, "
            f"Python {platform.python_version()}; data set `{results.dataset}`. Each row is {results.count} "
            "samples, measured by `bgan evaluate` against at most as many real test images, with the features of "
            f"{classifier}. The floor compares real test images with real training images. The preset `paper` is "
            "the paper's text with the faults of its code corrected; `published` is what the published code "
            "computes, which trains on the test images too (`bgan presets`). Several seeds: mean ± standard "
            "deviation."
        )

    def _claims(self) -> str:
        rows = [
            [verdict.claim.text, f"`{verdict.preset}`", f"**{verdict.verdict}**", verdict.evidence]
            for verdict in self._verdicts
        ]
        rules = "\n".join(
            f"- {claim.text}: {claim.rule}." for claim in CLAIMS if claim.experiment in self._results.plans
        )
        return (
            "## The paper's claims\n\n"
            + _table(["claim", "preset", "verdict", "figures"], rows)
            + f"\n\nA claim holds if:\n\n{rules}\n\n"
            "Mixed: the parts of the claim disagree. With one seed, differences may be chance."
        )

    def _conditions(self, name: str) -> str:
        plan = self._results.plans[name]
        presets = " and ".join(f"`{preset}`" for preset in plan.presets)
        overrides = "".join(f", `{key}` = {value}" for key, value in plan.overrides.items())
        return f"{presets}, {plan.epochs} epochs, {plan.seeds} seed(s){overrides}."

    def _experiment_i(self) -> list[str]:
        models = EXPERIMENTS["I"].models
        path = self._figure("experiment-1-samples.png")
        presets = self._results.plans["I"].presets
        grid_figure(
            path,
            [self._panels("I", preset, models) for preset in presets],
            row_titles=presets,
            column_titles=_FIGURE_COLUMNS,
            preactivated=(False, True) * 2,
        )
        histogram = self._histogram("I", "experiment-1-histogram.png", [(model, None) for model in models])
        return [
            _image("Samples and preactivated outputs of DBN and SBN models", path),
            _image("Histograms of preactivated outputs", histogram),
            self._quality("I", models, _QUALITY),
            self._preactivations("I", models),
        ]

    def _experiment_ii(self) -> list[str]:
        real = ExperimentModel(neuron="real")
        path = self._figure("experiment-2-samples.png")
        presets = self._results.plans["II"].presets
        panels = []
        for preset in presets:
            hard, soft = (self._samples("II", preset, real, way) for way in ("threshold", "bernoulli"))
            panels.append([hard[1], hard[0], soft[0]])
        grid_figure(
            path,
            panels,
            row_titles=presets,
            column_titles=("raw prediction", "hard thresholding", "Bernoulli sampling"),
            preactivated=(True, False, False),
        )
        models = EXPERIMENTS["II"].models
        histogram = self._histogram(
            "II", "experiment-2-histogram.png", [(model, binarizations(model)[0]) for model in models]
        )
        return [
            _image("The real-valued model: raw, thresholded and sampled", path),
            _image("Histograms of preactivated outputs", histogram),
            self._quality("II", models, _QUALITY),
            self._preactivations("II", models),
        ]

    def _experiment_iii(self) -> list[str]:
        parts = []
        for preset in self._results.plans["III"].presets:
            path = self._figure(f"experiment-3-{preset}.png")
            panels = [
                self._panels(
                    "III",
                    preset,
                    [
                        ExperimentModel(neuron=neuron, objective=objective, normalized=bn)
                        for neuron in ("dbn", "sbn")
                    ],
                )
                for objective, bn in OBJECTIVE_ROWS
            ]
            titles = [f"{objective.upper()}{', BN in D' if bn else ''}" for objective, bn in OBJECTIVE_ROWS]
            if any(panel is not None for row in panels for panel in row):
                grid_figure(
                    path, panels, row_titles=titles, column_titles=_FIGURE_COLUMNS, preactivated=(False, True) * 2
                )
                parts.append(_image(f"Objectives, preset {preset} (the paper's Figure 8)", path))
        keys = (*_QUALITY[:8], "class_entropy", "unique_share")
        return [*parts, self._quality("III", EXPERIMENTS["III"].models, keys)]

    def _experiment_iv(self) -> list[str]:
        models = EXPERIMENTS["IV"].models
        path = self._figure("experiment-4-samples.png")
        presets = self._results.plans["IV"].presets
        grid_figure(
            path,
            [[self._samples("IV", preset, model)[0] for model in models] for preset in presets],
            row_titles=presets,
            column_titles=[model.title for model in models],
            preactivated=(False,) * len(models),
        )
        return [
            _image("Samples of MLP and CNN models", path),
            "Trainable parameters of both networks under `published`, at 28x28: MLP 1,472,817, CNN 530,212. The "
            "paper and its slides print them swapped.",
            self._quality("IV", models, (*_ARTIFACTS, *_QUALITY)),
        ]

    def _quality(
        self,
        experiment: str,
        models: Sequence[ExperimentModel],
        keys: Sequence[str],
        first: Sequence[list[str]] = (),
    ) -> str:
        """A table of models by metrics, under the `first` rows and the published samples, over the floor."""
        results = self._results
        rows = list(first)
        published = results.published
        if published is not None and any(key in published for key in keys):
            values = [format_value(key, published.get(key)) for key in keys]
            rows.append(["published code: MLP, DBN, WGAN-GP", *values])
        for preset in results.plans[experiment].presets:
            for model in models:
                for binarization in binarizations(model):
                    outcomes = results.of(experiment, preset, model, binarization)
                    if outcomes:
                        way = f", {binarization}" if binarization else ""
                        rows.append([f"`{preset}` {model.title}{way}", *(spread(outcomes, key) for key in keys)])
        if any(key in results.floor for key in keys):
            rows.append(["floor: real images", *(format_value(key, results.floor.get(key)) for key in keys)])
        return _table(["", *(METRICS[key].title for key in keys)], rows)

    def _preactivations(self, experiment: str, models: Sequence[ExperimentModel]) -> str:
        """The table of preactivations, under what the paper's figure shows."""
        rows = [
            [f"the paper's Figure 4, {name}", format_value("first_bin", first), format_value("last_bin", last)]
            + ["-"] * (len(_PREACTIVATIONS) - 2)
            for name, (first, last) in _FIGURE_4.items()
            if name in {_short_title(model) for model in models}
        ]
        return self._quality(experiment, models, _PREACTIVATIONS, rows)

    def _histogram(self, experiment: str, name: str, models: Sequence[tuple[ExperimentModel, str | None]]) -> Path:
        panels = []
        for preset in self._results.plans[experiment].presets:
            lines = {}
            for model, binarization in models:
                for outcome in self._results.of(experiment, preset, model, binarization)[:1]:
                    lines[_short_title(model)] = np.array(outcome.preactivation_histogram)
            panels.append((preset, lines))
        path = self._figure(name)
        histogram_figure(path, panels)
        return path

    def _panels(self, experiment: str, preset: str, models: Sequence[ExperimentModel]) -> list[Panel]:
        """Images and probabilities of each model in turn."""
        return [panel for model in models for panel in self._samples(experiment, preset, model)]

    def _samples(
        self, experiment: str, preset: str, model: ExperimentModel, binarization: str | None = None
    ) -> tuple[Panel, Panel]:
        """The first images and probabilities of a model's first seed, or None twice."""
        outcomes = self._results.of(experiment, preset, model, binarization)
        if not outcomes:
            return None, None
        run = Run(self._folder / "runs" / outcomes[0].run)
        samples = TrainedGenerator.from_run(run).sample(_SHOWN, binarization=binarization)
        return samples.images, samples.probabilities

    def _figure(self, name: str) -> Path:
        return self._folder / "figures" / name

    def _not_run(self) -> str:
        results = self._results
        missing = [
            f"- Experiment {name}, `{preset}`: {model.title} ({plan.seeds - len(found)} of {plan.seeds} seeds)"
            for name, plan in results.plans.items()
            for preset in plan.presets
            for model in EXPERIMENTS[name].models
            if len(found := results.of(name, preset, model, binarizations(model)[0])) < plan.seeds
        ]
        missing += [
            f"- Experiment {name}, `{preset}`"
            for name, plan in results.plans.items()
            for preset in PRESETS
            if preset not in (*plan.presets, "modern")
        ]
        missing += [
            f"- Experiment {name}: {plan.epochs} of the paper's {PAPER_EPOCHS} epochs"
            for name, plan in results.plans.items()
            if plan.epochs < PAPER_EPOCHS
        ]
        missing += [f"- Experiment {name}" for name in EXPERIMENTS if name not in results.plans]
        return "\n".join(missing) or "Everything planned was run."

    def _runs(self) -> str:
        seen: dict[str, Outcome] = {outcome.run: outcome for outcome in self._results.outcomes}
        rows = [
            [f"`{outcome.run}`", str(outcome.epochs), f"{outcome.steps:,}", f"{outcome.seconds:,.0f}"]
            for outcome in seen.values()
        ]
        return _table(["run", "epochs", "iterations", "seconds in training"], rows)


def _short_title(model: ExperimentModel) -> str:
    return model.title.split(", ")[1]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _image(text: str, path: Path) -> str:
    return f"![{text}]({path.parent.name}/{path.name})"
