"""Standard errors: how far a figure moves with the draw of the samples, while the real images stay.

Means have that of a mean. All else has the jackknife's, which needs no second draw and, unlike the bootstrap,
repeats no image: repeated ones are at distance 0, which the metrics of neighbours take for copies.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

GROUPS = 20  # an error of 20 groups is itself uncertain by 16 %
_SEED = 0
_DISTINCT = 2  # standard errors of a difference


class Estimate(NamedTuple):
    """A figure and its standard error, None where it has none."""

    value: float
    error: float | None = None


def mean_estimate(values: NDArray[Any]) -> Estimate:
    """The mean of values [N, ...]; of the pixels of an image, their mean is what counts."""
    rows = values.reshape(len(values), -1).mean(axis=1, dtype=np.float64)
    error = float(rows.std(ddof=1)) / math.sqrt(len(rows)) if len(rows) > 1 else None
    return Estimate(float(rows.mean()), error)


def group_of_rows(count: int) -> NDArray[np.int64]:
    """The group of each of `count` rows, int64 [N]: drawn, as images may come in order of their classes."""
    return np.random.default_rng(_SEED).permutation(np.arange(count) % GROUPS)


def jackknife_estimate(function: Callable[[NDArray[Any]], float], rows: NDArray[Any]) -> Estimate:
    """A function of rows [N, ...], with the delete-a-group jackknife's error (Kott 2001)."""
    groups = group_of_rows(len(rows))
    if len(rows) < 2:
        return Estimate(function(rows))
    without = [function(rows[groups != group]) for group in range(groups.max() + 1)]
    return Estimate(function(rows), jackknife_error(without))


def jackknife_error(without: ArrayLike) -> float | None:
    """The error of a figure by its values without each group of rows; None where these are not all numbers."""
    values = np.asarray(without, np.float64)
    return float(np.sqrt(len(values) - 1) * values.std()) if np.isfinite(values).all() else None


def is_distinct(first: Estimate, second: Estimate) -> bool:
    """Whether two figures differ by more than twice the standard error of their difference."""
    return abs(first.value - second.value) > _DISTINCT * math.hypot(first.error or 0, second.error or 0)
