"""A refiner with binary neurons behind a trained generator with real-valued ones, as BMuseGAN has it.

The generator is trained with real-valued outputs first and then stays as it is; a residual unit that sees its
images is trained behind it, with binary output neurons (Dong and Yang 2018, "Convolutional generative adversarial
networks with binary neurons for polyphonic music generation", section 3).

Shapes: B batch, Z latent size, C channels, H rows, W columns.
"""

import math
from typing import Self

import torch
from torch import Tensor, nn

from ..common.image_shape import ImageShape
from .generators import Generator
from .layers import initialized, units_at_image

_HIDDEN_UNITS = 128


class RefinedGenerator(nn.Module):
    """A generator that is not trained any more, and a refiner of its images, which is."""

    def __init__(self, base: Generator, refiner: nn.Module) -> None:
        """`refiner` takes images [B, C, H, W] between 0 and 1 to what is added to their logits."""
        super().__init__()
        self.image_shape, self.class_count, self.latent_size = base.image_shape, base.class_count, base.latent_size
        self.refiner = refiner  # before the base: optimizers read their step from the first parameter
        self.base = base.requires_grad_(False).eval()

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, Z] latents, and [B] labels where it has classes, to [B, C, H, W] logits."""
        return refined_logits(self.base(latents, labels), self.refiner)

    def train(self, mode: bool = True) -> Self:
        """As torch's, but that the base keeps the statistics that it has."""
        super().train(mode)
        self.base.eval()
        return self


def refined_logits(logits: Tensor, refiner: nn.Module) -> Tensor:
    """The logits of a real-valued generator, and what the refiner adds to them, [B, C, H, W]."""
    added: Tensor = refiner(torch.sigmoid(logits))
    return logits + added


def build_refiner(image_shape: ImageShape) -> nn.Sequential:
    """A residual unit of one hidden layer, which at first adds nothing to any image.

    BMuseGAN's are convolutions; onnxruntime takes ten times as long for those of 16 channels from and to one.
    """
    pixels = math.prod(image_shape)
    units = units_at_image(_HIDDEN_UNITS, pixels)
    last = nn.Linear(units, pixels)
    layers = [nn.Flatten(), nn.Linear(pixels, units), nn.ReLU(), last, nn.Unflatten(1, image_shape)]
    refiner = initialized(nn.Sequential(*layers), "he")
    nn.init.zeros_(last.weight)
    return refiner
