"""How often the parts of a gated generator run, over all images and by class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..common.rng import random_stream
from ..networks.gates import GatedGenerator
from ..networks.inner import draw_inner_uniforms

_LATENTS = 4096  # of each class
_DEAD_BELOW = 1e-3


@dataclass(frozen=True, slots=True)
class GateShares:
    """Shares of images for which the E parts run."""

    by_class: NDArray[np.float64]
    """[K, E]; without classes [1, E]."""

    def overall(self, class_counts: Sequence[int] = ()) -> NDArray[np.float64]:
        """[E] over images of the classes in these shares; without counts classes weigh alike."""
        weights = np.array(class_counts or [1] * len(self.by_class), np.float64)
        shares: NDArray[np.float64] = weights @ self.by_class / weights.sum()
        return shares

    def dead(self) -> list[int]:
        """The parts, from 0, that run for fewer than one image in a thousand of every class."""
        return [part for part, most in enumerate(self.by_class.max(axis=0)) if most < _DEAD_BELOW]


@torch.no_grad()
def gate_shares(generator: GatedGenerator, slope: float) -> GateShares:
    """Measure them at 4,096 latents of each class, the same ones each time."""
    device = generator.gate.weight.device
    random = random_stream(0, "gate shares", device=device)
    latents = torch.randn(_LATENTS, generator.latent_size, generator=random, device=device)
    uniforms = draw_inner_uniforms(generator, _LATENTS, random)
    shares = []
    for label in range(max(1, generator.class_count)):
        labels = torch.full((_LATENTS,), label, device=device) if generator.class_count else None
        logits = generator.gate_logits(generator.trunk.inputs(latents, labels))
        shares.append(generator.bits(logits, slope, uniforms).double().mean(dim=0).cpu().numpy())
    return GateShares(np.stack(shares))
