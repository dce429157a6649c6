"""Estimators that backpropagate through the images: straight-through ones and relaxations. They are biased.

f' is the slope of the loss at the image that was judged; other symbols and shapes are those of `base`.
"""

import torch
from torch import Tensor

from ...networks.neurons import Number, OutputNeurons
from .base import Estimate, Estimator, LossFunction, draw_logistic, draw_uniforms


class ThroughNeurons(Estimator):
    """Backpropagates through the output neurons with their derivative, see `networks.neurons`.

    For binary ones: f'(b) p (1 - p) (`sigmoid-adjusted`, Dong and Yang 2018), f'(b) (`identity`, Bengio
    et al. 2013), or f'(b) |b - p| / 2 (`reinmax`, Liu et al. 2023, for two classes). For real ones it is exact.
    """

    def __init__(self, neuron: str, derivative: str) -> None:
        super().__init__()
        self.neurons = OutputNeurons(neuron, estimator=derivative)

    def forward(self, logits: Tensor, slope: Number, losses: LossFunction, random: torch.Generator) -> Estimate:
        """See `Estimator`."""
        self.neurons.slope = slope
        uniforms = draw_uniforms(logits, random) if self.neurons.needs_uniforms else None
        loss = losses(self.neurons(logits, uniforms)).mean()
        return Estimate(loss, loss)


class BinaryConcrete(Estimator):
    """s = sigma((m + L) / t) with logistic L in place of the bit 1[m + L > 0] (Maddison et al., Jang et al. 2017).

    `is_hard` judges the bits and takes the derivative of s: f'(b) s (1 - s) / t (`st-gumbel`). Else
    the loss is that of s itself: f'(s) s (1 - s) / t (`concrete`); the discriminator is trained on bits.
    """

    def __init__(self, temperature: float, *, is_hard: bool) -> None:
        super().__init__()
        self.temperature = temperature
        self.is_hard = is_hard

    def forward(self, logits: Tensor, slope: Number, losses: LossFunction, random: torch.Generator) -> Estimate:
        """See `Estimator`."""
        relaxed = torch.sigmoid((slope * logits + draw_logistic(logits, random)) / self.temperature)
        images = relaxed
        if self.is_hard:
            bits = (relaxed > 0.5).to(relaxed.dtype)
            images = bits + (relaxed - relaxed.detach())  # the bits, exactly, with the derivative of `relaxed`
        loss = losses(images).mean()
        return Estimate(loss, loss)
