"""Estimates of the gradient, drawn again and again: how far they are from the truth, and what they cost.

Shapes: G groups of independent draws, B images (of one latent each), N pixels an image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor

from ...training.estimators.base import Estimator
from .gradient_error import GROUPS, GradientError, compare, in_groups
from .subject import Subject

_WARM_UP_DRAWS = 30
_TIMED_DRAWS = 20  # where all draws are the same


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimatorDiagnosis:
    """What was measured of one estimator."""

    estimator: str
    accuracy: GradientError
    evaluations: float
    """Images that the discriminator judged, for one estimate at one image."""
    milliseconds: float
    """Median CPU time of one estimate, an image: what else runs on the machine does not count."""
    batch_error: float
    """`GradientError.batch_error` at the run's batch size."""


@dataclass(slots=True)
class _Draws:
    """What is kept of the estimates of one estimator."""

    estimator: Estimator
    sums: Tensor
    """Of each group's estimates, [G, B, N], float64."""
    sum_of_squares: float = 0.0
    judged: int = 0
    seconds: list[float] = field(default_factory=list)

    def add(self, subject: Subject, group: int) -> None:
        """Estimate once."""
        gradients, judged, seconds = _estimate(subject, self.estimator)
        self.sums[group] += gradients
        self.sum_of_squares += gradients.square().sum().item()
        self.judged += judged
        self.seconds.append(seconds)

    def diagnosis(self, name: str, truth: Tensor, batch_size: int) -> EstimatorDiagnosis:
        """All of it, held against the truth."""
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
    measured = [_Draws(subject.build_estimator(name), truth.new_zeros(groups, *truth.shape[1:])) for name in names]
    report("warming up")
    for _ in range(_WARM_UP_DRAWS):
        for each in measured:
            _estimate(subject, each.estimator)
    for index in range(count):
        if index % 10 == 0:
            report(f"{len(names)} estimators: draw {index} of {count}")
        for each in measured:
            # Draws in a row share a group: moving baselines make neighbours depend on each other.
            each.add(subject, index * groups // count)
    return [
        each.diagnosis(name, truth, subject.config.optimization.batch_size)
        for name, each in zip(names, measured, strict=True)
    ]


def _estimate(subject: Subject, estimator: Estimator) -> tuple[Tensor, int, float]:
    """Gradients of each image's loss [B, N], float64, how many images were judged, and the CPU seconds it took."""
    judged = 0

    def counted_losses(images: Tensor) -> Tensor:
        nonlocal judged
        judged += len(images)
        return subject.losses(images)

    logits = subject.logits.clone().requires_grad_()
    started = time.process_time()
    estimate = estimator(logits, subject.slope, counted_losses, subject.random)
    (gradients,) = torch.autograd.grad(estimate.surrogate, logits)
    seconds = time.process_time() - started
    return (len(logits) * gradients.flatten(1)).double(), judged, seconds
