"""Estimators that weight drawn images by the density ratio in the discriminator's logit.

They do not estimate the gradient of the expected loss: their target is the cross entropy from the
ratio-weighted generator to the generator, whose minimum is the data's distribution too. The loss of an image must
be the non-saturating f = -log D(b), so that the ratio D / (1 - D) is 1 / (e^f - 1).
Symbols and shapes are those of `base`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import LogitEstimator, LossFunction, SampledEstimator, by_image, draw_bits, losses_without_grad


class BoundarySeeking(SampledEstimator):
    """-sum_k w_k (b_k - p), w the ratios of K images of the same logits, normalized (Hjelm et al. 2018)."""

    def factors(self, losses: Tensor) -> Tensor:
        """See `SampledEstimator`."""
        return -log_ratio(losses).softmax(dim=0)


class MaliGan(LogitEstimator):
    """-(B w_i - 1) (b_i - p_i), w the ratios of the batch's images, normalized (Che et al. 2017).

    The baseline is 1 from the start, where the paper raises it: equal weights then give no gradient.
    """

    def gradients(self, logits: Tensor, losses: LossFunction, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `LogitEstimator`."""
        probabilities = torch.sigmoid(logits)
        bits = draw_bits(probabilities, random)
        values = losses_without_grad(losses, bits)
        weights = len(values) * log_ratio(values).softmax(dim=0)
        return -by_image(weights - 1) * (bits - probabilities), values


def log_ratio(losses: Tensor) -> Tensor:
    """The logit log D / (1 - D) = -log(e^f - 1) of losses f = -log D, accurate for large and small ones."""
    losses = losses.clamp_min(torch.finfo(losses.dtype).tiny)
    return -(losses + torch.log(-torch.expm1(-losses)))
