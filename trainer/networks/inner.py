"""Generators with binary neurons inside them: N of them an image, and what makes logits of their bits.

Shapes: B batch, Z latent size, N inner neurons, C channels, H rows, W columns.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..common.image_shape import ImageShape
from .neurons import Number, OutputNeurons


class InnerPass(NamedTuple):
    """A forward pass as far as the inner neurons, and the rest of it."""

    logits: Tensor
    """Those of the inner neurons, [B, N], before the slope; N is 0 where there are none."""
    outputs: Callable[[Tensor], Tensor]
    """Bits of the inner neurons [B, N], or values between 0 and 1, to the image's logits [B, C, H, W]."""


class InnerGenerator(nn.Module, ABC):
    """A generator with inner neurons: latents, and classes where it has any, to logits."""

    image_shape: ImageShape
    latent_size: int
    class_count: int
    inner_count: int
    """N."""

    def __init__(self, neuron: str) -> None:
        super().__init__()
        self.neuron = neuron
        """The kind of its inner neurons: "dbn" or "sbn"."""

    @property
    def inner_uniforms(self) -> int:
        """How many uniforms its inner neurons take for an image: N if they are stochastic, else 0."""
        return self.inner_count if self.neuron == "sbn" else 0

    @abstractmethod
    def inner_pass(self, latents: Tensor, labels: Tensor | None = None) -> InnerPass:
        """[B, Z] latents, and [B] labels where it has classes."""

    def bits(self, logits: Tensor, slope: Number = 1.0, uniforms: Tensor | None = None) -> Tensor:
        """The bits [B, N] of inner logits; stochastic neurons compare with uniforms [B, N] in [0, 1)."""
        bits: Tensor = OutputNeurons(self.neuron, slope=slope)(logits, uniforms)
        return bits

    def forward(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
        *,
        slope: Number = 1.0,
        inner_uniforms: Tensor | None = None,
    ) -> Tensor:
        """The logits [B, C, H, W]; raises ValueError where stochastic neurons have no `inner_uniforms` [B, N]."""
        passed = self.inner_pass(latents, labels)
        return passed.outputs(self.bits(passed.logits, slope, inner_uniforms))


def inner_pass(generator: nn.Module, latents: Tensor, labels: Tensor | None) -> InnerPass:
    """That of any generator, which may have no inner neurons."""
    if isinstance(generator, InnerGenerator):
        return generator.inner_pass(latents, labels)
    logits: Tensor = generator(latents, labels)
    return InnerPass(logits.new_empty(len(logits), 0), lambda bits: logits)


def generator_logits(
    generator: nn.Module,
    latents: Tensor,
    labels: Tensor | None = None,
    *,
    slope: Number = 1.0,
    inner_uniforms: Tensor | None = None,
) -> Tensor:
    """The logits [B, C, H, W] of any generator; the slope is that of its inner neurons, if it has any."""
    own = {"slope": slope, "inner_uniforms": inner_uniforms} if isinstance(generator, InnerGenerator) else {}
    logits: Tensor = generator(latents, labels, **own)
    return logits


def inner_uniform_count(generator: nn.Module) -> int:
    """How many uniforms the inner neurons of any generator take for an image."""
    return generator.inner_uniforms if isinstance(generator, InnerGenerator) else 0


def draw_inner_uniforms(generator: nn.Module, rows: int, random: torch.Generator) -> Tensor | None:
    """Uniforms [rows, N] on the random generator's device; None where the generator takes none."""
    count = inner_uniform_count(generator)
    return torch.rand(rows, count, generator=random, device=random.device) if count else None
