"""The interface of the gradient estimators: logits and a loss of each image give a scalar to call backward on.

In this package p = sigma(m) is the probability that a neuron fires, b its bit, and m = a l its logit l scaled by
the slope a. Formulas are by m; autograd continues from m to l, which gives the factor a, and to the weights.

Shapes: B batch, C channels, H rows, W columns, K images of the same logits; logits, images and gradients are
[B, C, H, W], losses [B].
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...networks.neurons import Number

LossFunction = Callable[[Tensor], Tensor]
"""Images [B, C, H, W] to the generator's loss of each, [B]; differentiable, and defined between 0 and 1 too."""

_LEAST = 1e-6  # uniforms are kept this far from 0 and 1 where their logit is taken


class Estimate(NamedTuple):
    """An estimate of the gradient of the mean loss."""

    surrogate: Tensor
    """A scalar whose gradient by the logits is the estimate. Its value means nothing."""
    value: Tensor
    """The mean loss of the images that were judged, a scalar, for the log."""


class Estimator(nn.Module, ABC):
    """Estimates the gradient of the expected loss by the logits; its parameters and buffers are its state."""

    optimizer: torch.optim.Optimizer | None = None
    """Trains its parameters, if it has any, by the gradients that `forward` leaves in them."""

    @abstractmethod
    def forward(self, logits: Tensor, slope: Number, losses: LossFunction, random: torch.Generator) -> Estimate:
        """One estimate at logits [B, C, H, W] that require a gradient; all noise comes from `random`."""


class LogitEstimator(Estimator):
    """An estimator that computes the gradient of each image's loss by its logits itself."""

    def forward(self, logits: Tensor, slope: Number, losses: LossFunction, random: torch.Generator) -> Estimate:
        """See `Estimator`."""
        scaled = slope * logits
        gradients, values = self._gradients(scaled.detach(), losses, random)
        return Estimate((gradients.detach() * scaled).sum() / len(scaled), values.detach().mean())

    @abstractmethod
    def _gradients(self, logits: Tensor, losses: LossFunction, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Gradients [B, C, H, W] by the scaled logits, which carry no graph, and the losses [B]."""


class SampledEstimator(LogitEstimator):
    """sum_k v_k (b_k - p) over K images b_k of the same logits, v made from the K losses."""

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.samples = samples

    def _gradients(self, logits: Tensor, losses: LossFunction, random: torch.Generator) -> tuple[Tensor, Tensor]:
        probabilities = torch.sigmoid(logits)
        bits = [draw_bits(probabilities, random) for _ in range(self.samples)]
        values = torch.stack([losses_without_grad(losses, images) for images in bits])  # [K, B]
        gradients = torch.zeros_like(logits)
        for factor, images in zip(self._factors(values), bits, strict=True):
            gradients += by_image(factor) * (images - probabilities)
        return gradients, values.mean(dim=0)

    @abstractmethod
    def _factors(self, losses: Tensor) -> Tensor:
        """The v_k, [K, B], of losses [K, B]."""


def draw_uniforms(logits: Tensor, random: torch.Generator) -> Tensor:
    """Uniforms in [0, 1), shaped as the logits."""
    return torch.rand(logits.shape, generator=random, device=logits.device, dtype=logits.dtype)


def draw_logistic(logits: Tensor, random: torch.Generator) -> Tensor:
    """Standard logistic noise logit(u), shaped as the logits and within 14 of 0.

    m plus it is above 0 with the probability sigma(m).
    """
    return torch.logit(draw_uniforms(logits, random), eps=_LEAST)


def draw_bits(probabilities: Tensor, random: torch.Generator) -> Tensor:
    """Bits that are 1 with these probabilities, as floats."""
    return (draw_uniforms(probabilities, random) < probabilities).to(probabilities.dtype)


@torch.no_grad()
def losses_without_grad(losses: LossFunction, images: Tensor) -> Tensor:
    """The losses [B] of images, without a graph."""
    return losses(images)


def relaxed_losses(losses: LossFunction) -> LossFunction:
    """The losses to differentiate between 0 and 1: their attribute `relaxed`, where they have one.

    Where bits pass through further binary neurons, a derivative that stands in for theirs would bias what needs
    the true one.
    """
    relaxed: LossFunction = getattr(losses, "relaxed", losses)
    return relaxed


def by_image(values: Tensor) -> Tensor:
    """[B] as [B, 1, 1, 1], to multiply what is [B, C, H, W]."""
    return values.view(-1, 1, 1, 1)
