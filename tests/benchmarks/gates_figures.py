"""The figures of docs/gates.md: distance by cost, what serves which class, and samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bgan.trainer.common.grids import tiled
from bgan.trainer.evaluation.generator import TrainedGenerator
from bgan.trainer.reports.figures import DPI, save_figure
from bgan.trainer.training.run import Run

from .gates_lines import Line

FOLDER = Path("docs/figures")
_COLOURS = {"dense": "#555555", "latents": "#1f6fb4", "labels": "#2e8b57", "random": "#c8502d"}
_OF_EACH_CLASS = 8
_NARROW = 0.04  # whose distance is so large that it would hide the differences of the others
_SHOWN = (
    "dense-w0.125", "dense-w1", "latents-w1-r0.25", "labels-w1-r0.25", "random-w1-r0.25",
    "latents-w1-r0.25-sbn-reinforce-loo",
)  # fmt: skip
"""The lines whose samples and gates are drawn, by their names."""


def draw(results: Sequence, folders: Mapping[tuple[str, Line, int], Path]) -> None:
    """All figures; `folders` are those of runs by part, line and seed."""
    compared = dict.fromkeys(result.part for result in results if result.part != "estimators")
    if "mnist" in compared:
        panels = {part: [each for each in results if each.part == part] for part in compared}
        _draw_costs(panels)
        _draw_classes([each for each in panels["mnist"] if each.shares.size and each.line.name in _SHOWN])
        _draw_samples(
            {
                line: folder
                for (part, line, seed), folder in folders.items()
                if (part, seed) == ("mnist", 0) and line.name in _SHOWN
            }
        )


def _draw_costs(panels: Mapping[str, Sequence]) -> None:
    """Distance by cost, a panel for each data set; stochastic gates, which cost what others do, are left out."""
    figure = Figure(figsize=(5.4 * len(panels), 5), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (part, results) in zip(axes, panels.items(), strict=True):
        drawn = [each for each in results if each.line.neuron is None and each.line.width > _NARROW]
        drawn.sort(key=lambda each: each.mean("microseconds"))
        for kind in _COLOURS:
            if found := [each for each in drawn if each.line.kind == kind]:
                _draw_kind(axis, kind, found)
        axis.margins(x=0.15)
        axis.set(
            title=part, xlabel="µs an image, one thread", ylabel="Fréchet distance", xscale="log", yscale="log"
        )
        for each in (axis.xaxis, axis.yaxis):
            each.set_major_formatter("{x:g}")
            each.set_minor_formatter("{x:g}")
        axis.legend(fontsize=8)
    save_figure(figure, FOLDER / "gates-cost.png")


def _draw_kind(axis: Axes, kind: str, results: Sequence) -> None:
    """The lines of one kind, by their cost, with error bars and labels."""
    costs, distances = ([each.mean(name) for each in results] for name in ("microseconds", "frechet_distance"))
    axis.errorbar(
        costs,
        distances,
        [each.deviation("frechet_distance") for each in results],
        fmt="o-" if kind == "dense" else "o",
        color=_COLOURS[kind],
        capsize=3,
        label=kind if kind == "dense" else f"gates by {kind}",
    )
    for number, each in enumerate(results):
        is_right = kind == "dense" or number % 2 == 1  # of two files of like cost one on either side
        axis.annotate(
            each.line.label,
            (costs[number], distances[number]),
            (6, 0) if is_right else (-6, 0),
            textcoords="offset points",
            ha="left" if is_right else "right",
            va="center",
            fontsize=7,
            color=_COLOURS[kind],
        )


def _draw_classes(results: Sequence) -> None:
    """How often each part serves each class, by seed 0 of each line."""
    figure = Figure(figsize=(3.6 * len(results), 3.6), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(results), squeeze=False)[0]
    for axis, result in zip(axes, results, strict=True):
        drawn = axis.imshow(result.shares, vmin=0, vmax=1, cmap="viridis")
        for (row, column), share in np.ndenumerate(result.shares):
            colour = "black" if share > 0.6 else "white"
            axis.text(column, row, f"{share:.2f}".lstrip("0"), ha="center", va="center", fontsize=6, color=colour)
        axis.set_title(f"gates by {result.line.kind} {result.line.label}", fontsize=9)
        axis.set(xlabel="part", ylabel="class", yticks=range(len(result.shares)))
    figure.colorbar(drawn, ax=axes, label="share of the images for which it runs")
    save_figure(figure, FOLDER / "gates-classes.png")


def _draw_samples(folders: Mapping[Line, Path]) -> None:
    """Samples of seed 0, a row for each class."""
    figure = Figure(figsize=(2.2 * len(folders), 3), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(folders), squeeze=False)[0]
    for axis, (line, folder) in zip(axes, folders.items(), strict=True):
        generator = TrainedGenerator.from_run(Run(folder))
        images = generator.sample(_OF_EACH_CLASS * len(generator.classes), labels=generator.classes).images
        rows = images.reshape(_OF_EACH_CLASS, len(generator.classes), *images.shape[1:]).swapaxes(0, 1)
        picture = tiled(rows.reshape(images.shape)[:, 0], columns=_OF_EACH_CLASS, gap=1, background=0)
        axis.imshow(picture, cmap="gray", interpolation="none")
        axis.set_title(f"{line.kind} {line.label}", fontsize=9)
        axis.set_axis_off()
    save_figure(figure, FOLDER / "gates-samples.png")
