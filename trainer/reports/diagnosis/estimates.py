"""Estimates of the gradient, drawn again and again: how far they are from the truth, and what they cost.

The truth is estimated too; the noise in both is told apart from bias. Shapes: G groups of independent draws, B
images (of one latent each), N neurons that are compared; the means of groups are [G, B, N], float64.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor

from ...training.estimators.base import Estimator, LossFunction, relaxed_losses
from .subject import Subject

GROUPS = 10
_WARM_UP_DRAWS = 30
_TIMED_DRAWS = 20  # where all draws are the same


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientError:
    """An estimator's distance from the reference, relative to the reference's norm, over all images together."""

    squared_bias: float
    """|E g - g*|^2 / |g*|^2, unbiased: under 0 now and then where there is no bias."""
    squared_bias_error: float
    noise: float
    """The root of the trace of one image's covariance over |g*|^2."""
    cosine: float
    """The cosine between E g and g*, corrected for the noise in both; NaN where noise drowns it."""
    cosine_error: float

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


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimatorDiagnosis:
    """What was measured of one estimator."""

    estimator: str
    accuracy: GradientError
    evaluations: float
    """Images that the discriminator judged, for one estimate at one image."""
    milliseconds: float
    """Median time of one estimate, an image: on a CPU its own time alone, whatever else runs on the machine."""
    batch_error: float
    """`GradientError.batch_error` at the run's batch size."""


@dataclass(slots=True)
class _Draws:
    """The estimates of one estimator, added up."""

    estimator: Estimator
    sums: Tensor
    """Of each group's estimates, [G, B, N], float64."""
    sum_of_squares: float = 0.0
    judged: int = 0
    seconds: list[float] = field(default_factory=list)

    def add(self, subject: Subject, group: int) -> None:
        gradients, judged, seconds = _estimate(subject, self.estimator)
        self.sums[group] += gradients
        self.sum_of_squares += gradients.square().sum().item()
        self.judged += judged
        self.seconds.append(seconds)

    def diagnosis(self, name: str, truth: Tensor, batch_size: int) -> EstimatorDiagnosis:
        count, images = len(self.seconds), self.sums.shape[1]
        means = self.sums / (count / len(self.sums))
        squares = max(self.sum_of_squares - count * means.mean(dim=0).square().sum().item(), 0.0)
        error = compare(means, squares / (count - 1) if len(means) > 1 else 0.0, truth)
        return EstimatorDiagnosis(
            estimator=name,
            accuracy=error,
            evaluations=self.judged / count / images,
            milliseconds=1e3 * median(self.seconds) / images,
            batch_error=error.batch_error(batch_size),
        )


def measure_estimators(
    subject: Subject, names: Sequence[str], draws: int, truth: Tensor, report: Callable[[str], None]
) -> list[EstimatorDiagnosis]:
    """Draw `draws` or more estimates of each, in turns so that times compare; the truth is [1 or G, B, N]."""
    groups, count = (1, _TIMED_DRAWS) if subject.neuron == "dbn" else (GROUPS, in_groups(draws))
    sums = truth.new_zeros(groups, *truth.shape[1:])
    measured = {name: _Draws(subject.build_estimator(name), sums.clone()) for name in names}
    report("warming up")
    for _, each in itertools.product(range(_WARM_UP_DRAWS), measured.values()):
        _estimate(subject, each.estimator)
    for index in range(count):
        if index % 10 == 0:
            report(f"{len(names)} estimators: draw {index} of {count}")
        for each in measured.values():
            # Draws in a row share a group: moving baselines make neighbours depend on each other.
            each.add(subject, index * groups // count)
    batch_size = subject.config.optimization.batch_size
    return [each.diagnosis(name, truth, batch_size) for name, each in measured.items()]


def _estimate(subject: Subject, estimator: Estimator) -> tuple[Tensor, int, float]:
    """Gradients of each image's loss [B, N], float64, how many images were judged, and the seconds taken."""
    counted = _CountedLosses(subject.losses)
    logits = subject.logits.clone().requires_grad_()
    clock = time.process_time if logits.device.type == "cpu" else time.perf_counter
    started = clock()
    estimate = estimator(logits, subject.slope, counted, subject.random)
    if estimator.optimizer is not None:
        estimator.optimizer.step()
    (gradients,) = torch.autograd.grad(estimate.surrogate, logits)
    if logits.device.type != "cpu":
        torch.accelerator.synchronize()
    seconds = clock() - started
    return (len(logits) * subject.chosen(gradients)).cpu().double(), counted.judged, seconds


class _CountedLosses:
    """Losses that count the images judged."""

    def __init__(self, losses: LossFunction) -> None:
        self._losses, self._relaxed, self.judged = losses, relaxed_losses(losses), 0

    def __call__(self, images: Tensor) -> Tensor:
        self.judged += len(images)
        return self._losses(images)

    def relaxed(self, images: Tensor) -> Tensor:
        """See `relaxed_losses`."""
        self.judged += len(images)
        return self._relaxed(images)


def in_groups(count: int) -> int:
    """The count, rounded up to the same number for each group."""
    return -(-count // GROUPS) * GROUPS


def compare(draws: Tensor, variance: float, truth: Tensor) -> GradientError:
    """How far group means of estimates [G, B, N] are from those of the truth, or from [1, B, N] if that is exact.

    Squared norms come from products of different groups, whose noise is independent, so that noise adds nothing to
    them; standard errors from leaving out one group at a time (the jackknife). `variance` is the trace of the
    covariance of one estimate, summed over the images.
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
