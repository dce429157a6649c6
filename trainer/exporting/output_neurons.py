"""Neurons as a graph has them: they compare, and draw no noise."""

import torch
from torch import Tensor


def on(probabilities: Tensor, uniforms: Tensor | None) -> Tensor:
    """Which neurons fire: those above 0.5, or above their uniform."""
    return probabilities > 0.5 if uniforms is None else uniforms < probabilities


def images_of(logits: Tensor, uniforms: Tensor | None) -> tuple[Tensor, Tensor]:
    """(images uint8, probabilities float32) of logits times the slope; without uniforms the threshold is 0.5."""
    probabilities = torch.sigmoid(logits)
    return on(probabilities, uniforms).to(torch.uint8), probabilities
