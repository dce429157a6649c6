"""How close estimates come to a truth that is itself estimated, told apart from the noise in both.

Shapes: G groups of independent draws, B images, N pixels an image; the means of groups are [G, B, N], float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

GROUPS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientError:
    """An estimator's distance from the reference, relative to the reference's norm, over all images together."""

    squared_bias: float
    """|E g - g*|^2 / |g*|^2, unbiased: under 0 now and then where there is no bias."""
    squared_bias_error: float
    """Its standard error."""
    noise: float
    """The root of the trace of one image's covariance over |g*|^2."""
    cosine: float
    """The cosine between E g and g*, corrected for the noise in both; NaN where noise drowns it."""
    cosine_error: float
    """Its standard error."""

    @property
    def is_biased(self) -> bool:
        """Whether the bias is more than 2 standard errors from 0."""
        return self.squared_bias > 2 * self.squared_bias_error

    @property
    def bias(self) -> float:
        """The relative bias; where it is not distinguished from 0, the most that it may be (2 standard errors)."""
        if self.is_biased:
            return math.sqrt(self.squared_bias)
        return math.sqrt(max(self.squared_bias, 0.0) + 2 * self.squared_bias_error)

    @property
    def bias_error(self) -> float:
        """The standard error of the bias, where there is one."""
        return self.squared_bias_error / (2 * self.bias) if self.is_biased else 0.0

    def batch_error(self, batch_size: int) -> float:
        """Bias, and what the mean over a batch leaves of the noise: the relative error of a step's gradient."""
        return math.sqrt((self.squared_bias if self.is_biased else 0.0) + self.noise**2 / batch_size)


def in_groups(count: int) -> int:
    """The count, rounded up to the same number for each group."""
    return -(-count // GROUPS) * GROUPS


def compare(draws: Tensor, variance: float, truth: Tensor) -> GradientError:
    """How far group means of estimates [G, B, N] are from those of the truth, or from [1, B, N] if that is exact.

    Squared norms come from products of different groups, whose noise is independent, so that noise adds nothing to
    them; standard errors from leaving out one group at a time (the jackknife). `variance` is the
    trace of the covariance of one estimate, summed over the images.
    """
    squared_bias, cosine = _bias_and_cosine(draws, truth)
    left_out = []
    for index in range(len(draws) if len(draws) > 1 else 0):
        kept = [other for other in range(len(draws)) if other != index]
        left_out.append(_bias_and_cosine(draws[kept], truth[kept] if len(truth) > 1 else truth))
    return GradientError(
        squared_bias=squared_bias,
        squared_bias_error=_jackknife_error([bias for bias, _ in left_out]),
        noise=math.sqrt(variance / square(truth)),
        cosine=cosine,
        cosine_error=_jackknife_error([cosine for _, cosine in left_out]),
    )


def square(groups: Tensor) -> float:
    """|E x|^2 from independent means [G, ...], without bias: the mean product of two different ones."""
    return _product(groups, groups)


def _product(first: Tensor, second: Tensor) -> float:
    """<E x, E y> from independent pairs of means: the mean product of an x and a y of different pairs."""
    if len(first) == 1 or len(second) == 1:
        return (first.mean(dim=0) * second.mean(dim=0)).sum().item()
    count = len(first)
    all_pairs = (first.sum(dim=0) * second.sum(dim=0)).sum() - (first * second).sum()
    return all_pairs.item() / (count * (count - 1))


def _bias_and_cosine(draws: Tensor, truth: Tensor) -> tuple[float, float]:
    """The squared relative bias, and the cosine, NaN where noise drowns it."""
    squares = square(draws) * square(truth)
    cosine = _product(draws, truth) / math.sqrt(squares) if squares > 0 else math.nan
    return square(draws - truth) / square(truth), cosine


def _jackknife_error(leaving_one_out: Sequence[float]) -> float:
    """The standard error of a figure, from its values with one group left out; 0 where it is exact."""
    count = len(leaving_one_out)
    if count == 0:
        return 0.0
    mean = sum(leaving_one_out) / count
    return math.sqrt((count - 1) / count * sum((value - mean) ** 2 for value in leaving_one_out))
