"""The picture of a diagnosis: every estimator by its bias, its noise and its cost."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...config.estimators import estimator_entry
from ..figures import DPI, save_figure
from .diagnose import Diagnosis
from .estimates import EstimatorDiagnosis

_UNBIASED, _BIASED = "#1f6fb4", "#c8502d"
_AREA = 40  # of a point, in square points, for each image that is judged
_FONT, _CHARACTER, _LINE = 8, 4.6, 9  # of the names, in points
_LEVELS = (0.1, 0.3, 1.0, 3.0)


def diagnosis_figure(path: Path, diagnosis: Diagnosis) -> None:
    """Bias against noise, both logarithmic; of deterministic neurons, which have no noise, bias against cosine.

    The size of a point is the number of images that the discriminator judges for an estimate.
    """
    figure = Figure(figsize=(8.2, 5.6), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    is_noisy = any(item.accuracy.noise > 0 for item in diagnosis.estimators)
    points = [(item, item.accuracy.noise if is_noisy else item.accuracy.cosine) for item in diagnosis.estimators]
    for item, height in points:
        colour = _UNBIASED if estimator_entry(item.estimator).is_unbiased else _BIASED
        bias = item.accuracy.bias
        axis.scatter([bias], [height], s=_AREA * item.evaluations, color=colour, alpha=0.65, linewidths=0)
        if not item.accuracy.is_biased:
            arrow = {"arrowstyle": "->", "color": colour, "linewidth": 1}
            axis.annotate("", (bias * 0.62, height), xytext=(bias, height), arrowprops=arrow)
    axis.set(xscale="log", xlabel="relative bias, |E g - g*| / |g*|    (an arrow: at most that, no bias seen)")
    axis.margins(0.18, 0.12)
    if is_noisy:
        axis.set(yscale="log", ylabel="relative noise of one image, sqrt(tr Var g) / |g*|")
        _draw_levels(axis, diagnosis.batch_size)
    else:
        axis.set_ylabel("cosine between the estimate and the reference")
    what = f"{diagnosis.network}, {diagnosis.neurons}, {diagnosis.objective}"
    axis.set_title(
        f"{diagnosis.run}: {what}, step {diagnosis.step}\n"
        "blue: unbiased by theory; size: images judged for an estimate",
        fontsize=10,
    )
    figure.draw_without_rendering()
    _draw_labels(axis, points)
    save_figure(figure, path)


def _draw_labels(axis: Axes, points: Sequence[tuple[EstimatorDiagnosis, float]]) -> None:
    """The names to the right of their points, moved up or down where another name is in the way."""
    taken: list[tuple[float, float, float]] = []  # left, right and middle of each name, in points
    for item, height in points:
        x, y = axis.transData.transform((item.accuracy.bias, height)) * 72 / DPI
        left = x + math.sqrt(_AREA * item.evaluations) / 2 + 2
        right = left + _CHARACTER * len(item.estimator)
        rise = next(
            rise
            for rise in sorted((step * _LINE for step in range(-20, 21)), key=abs)
            if all(right < other[0] or other[1] < left or abs(y + rise - other[2]) >= _LINE for other in taken)
        )
        taken.append((left, right, y + rise))
        axis.annotate(
            item.estimator,
            (item.accuracy.bias, height),
            xytext=(left - x, rise),
            textcoords="offset points",
            va="center",
            fontsize=_FONT,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "#888888"} if rise else None,
        )


def _draw_levels(axis: Axes, batch_size: int) -> None:
    """Lines of equal error of a batch's gradient, behind the points and within what they span."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    biases, noises = np.meshgrid(np.geomspace(left, right, 200), np.geomspace(bottom, top, 200))
    errors = np.sqrt(biases**2 + noises**2 / batch_size)
    levels = [level for level in _LEVELS if errors.min() < level < errors.max()]
    if levels:
        lines = axis.contour(biases, noises, errors, levels, colors="#aaaaaa", linewidths=0.7, zorder=0)
        axis.clabel(lines, fmt=lambda level: f"{level:g} in a batch of {batch_size}", fontsize=7)
