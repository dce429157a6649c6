"""Estimators from the losses of drawn images alone: score-function ones, and importance weights.

Score-function estimators are unbiased. For bits b drawn with p, the gradient of E f(b) by m is E f(b) (b - p)
(Williams 1992); what is subtracted from f is a baseline, and must not depend on b.

Importance weights, by the density ratio in the discriminator's logit, do not estimate the gradient of the expected
loss: their target is the cross entropy from the ratio-weighted generator to the generator, whose minimum is the
data's distribution too. The loss of an image must be the non-saturating f = -log D(b), so that the ratio
D / (1 - D) is 1 / (e^f - 1). Symbols and shapes are those of `base`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .base import (
    LogitEstimator,
    LossFunction,
    SampledEstimator,
    by_image,
    draw_bits,
    draw_uniforms,
    losses_without_grad,
)

_DECAY = 0.95
_LEAST_VARIANCE = 1e-6


class Reinforce(LogitEstimator):
    """(f(b) - c) (b - p), c a moving average of the losses of earlier batches (Williams 1992)."""

    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))
        self._has_baseline = False  # once it has one, it always does: the device need not be asked again

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        """As torch's; the baseline may be gone."""
        self._has_baseline = False
        return super().load_state_dict(*arguments, **options)

    def _gradients(self, logits: Tensor, losses: LossFunction, random: torch.Generator) -> tuple[Tensor, Tensor]:
        probabilities = torch.sigmoid(logits)
        self._has_baseline = self._has_baseline or self.weight.item() > 0
        if not self._has_baseline:  # no batch came before: another draw of this one sets it
            self._draw(probabilities, losses, random)
        baseline = self._baseline()
        deviations, values = self._draw(probabilities, losses, random)
        return (by_image(values) - baseline) * deviations, values

    def _baseline(self) -> Tensor:
        """The baseline, which broadcasts to [B, C, H, W]."""
        return self.total / self.weight

    def _remember(self, deviations: Tensor, values: Tensor) -> None:
        """Add a batch to the baseline: b - p, [B, C, H, W], and losses [B]."""
        self.total.lerp_(values.mean().to(self.total.dtype), 1 - _DECAY)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - _DECAY)

    def _draw(self, probabilities: Tensor, losses: LossFunction, random: torch.Generator) -> tuple[Tensor, Tensor]:
        bits = draw_bits(probabilities, random)
        deviations, values = bits - probabilities, losses_without_grad(losses, bits)
        self._remember(deviations, values)
        return deviations, values


class PerUnitReinforce(Reinforce):
    """(f(b) - c_j) (b_j - p_j), c_j = E f (b_j - p_j)^2 / E (b_j - p_j)^2 over earlier batches.

    That is the constant of least variance for each neuron by itself (Bengio et al. 2013). A neuron that
    never changes has the baseline of all.
    """

    weighted: Tensor
    variance: Tensor

    def __init__(self, image_shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("weighted", torch.zeros(*image_shape))
        self.register_buffer("variance", torch.zeros(*image_shape))

    def _baseline(self) -> Tensor:
        # A variance of 1e-6 in all comes from the mean loss, so that there is always something to divide by.
        return (self.weighted + _LEAST_VARIANCE * self.total) / (self.variance + _LEAST_VARIANCE * self.weight)

    def _remember(self, deviations: Tensor, values: Tensor) -> None:
        super()._remember(deviations, values)
        squares = deviations.square()
        self.weighted.lerp_((by_image(values) * squares).mean(dim=0).to(self.weighted.dtype), 1 - _DECAY)
        self.variance.lerp_(squares.mean(dim=0).to(self.variance.dtype), 1 - _DECAY)


class LeaveOneOutReinforce(SampledEstimator):
    """1/K sum_k (f(b_k) - mean of the other losses) (b_k - p), K images of the same logits (Kool et al. 2019)."""

    def _factors(self, losses: Tensor) -> Tensor:
        # f_k less the mean of the others is K / (K - 1) times f_k less the mean of all.
        return (losses - losses.mean(dim=0)) / (self.samples - 1)


class Disarm(LogitEstimator):
    """1/2 (f(b) - f(b')) (b - b') sigma(|m|), b = 1[u > 1 - p], b' = 1[u < p] (Dong, Mnih and Tucker 2020)."""

    def _gradients(self, logits: Tensor, losses: LossFunction, random: torch.Generator) -> tuple[Tensor, Tensor]:
        probabilities, uniforms = torch.sigmoid(logits), draw_uniforms(logits, random)
        first = (uniforms > 1 - probabilities).to(logits.dtype)
        second = (uniforms < probabilities).to(logits.dtype)
        first_losses, second_losses = losses_without_grad(losses, first), losses_without_grad(losses, second)
        gradients = by_image(first_losses - second_losses) / 2 * (first - second) * torch.sigmoid(logits.abs())
        return gradients, (first_losses + second_losses) / 2


class BoundarySeeking(SampledEstimator):
    """-sum_k w_k (b_k - p), w the ratios of K images of the same logits, normalized (Hjelm et al. 2018)."""

    def _factors(self, losses: Tensor) -> Tensor:
        return -log_ratio(losses).softmax(dim=0)


class MaliGan(LogitEstimator):
    """-(B w_i - 1) (b_i - p_i), w the ratios of the batch's images, normalized (Che et al. 2017).

    The baseline is 1 from the start, where the paper raises it: equal weights then give no gradient.
    """

    def _gradients(self, logits: Tensor, losses: LossFunction, random: torch.Generator) -> tuple[Tensor, Tensor]:
        probabilities = torch.sigmoid(logits)
        bits = draw_bits(probabilities, random)
        values = losses_without_grad(losses, bits)
        weights = len(values) * log_ratio(values).softmax(dim=0)
        return -by_image(weights - 1) * (bits - probabilities), values


def log_ratio(losses: Tensor) -> Tensor:
    """The logit log D / (1 - D) = -log(e^f - 1) of losses f = -log D, accurate for large and small ones."""
    losses = losses.clamp_min(torch.finfo(losses.dtype).tiny)
    return -(losses + torch.log(-torch.expm1(-losses)))
