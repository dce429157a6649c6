"""The gradient estimators for networks other than bgan's, such as a VAE with binary latents."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from ...common.errors import ConfigError
from ...common.image_shape import ImageShape
from ...config.estimators import estimator_entry
from ...config.training import TrainingConfig
from ...networks.neurons import Number
from .base import Estimate, Estimator
from .build import build_estimator


class GradientEstimator(nn.Module):
    """Estimates the gradient of the mean loss by the logits [B, ...] of binary neurons, whatever their shape."""

    def __init__(self, estimator: Estimator) -> None:
        super().__init__()
        self.estimator = estimator

    def forward(
        self,
        logits: Tensor,
        losses: Callable[[Tensor], Tensor],
        *,
        slope: Number = 1.0,
        random: torch.Generator | None = None,
    ) -> Estimate:
        """One estimate at logits [B, ...] that require a gradient: call `surrogate.backward()`.

        `losses` maps bits [B, ...] to the loss of each row [B], of that row alone; some estimators also call it
        between 0 and 1, and differentiate it. Noise comes from `random`, or torch's global generator. The
        surrogate's gradient is right for the logits; other parameters of `losses` need one of their own.
        """
        shape = logits.shape
        self.estimator.zero_grad()
        flat = logits.reshape(shape[0], 1, 1, -1)

        def of_rows(bits: Tensor) -> Tensor:
            found = losses(bits.reshape(len(bits), *shape[1:]))
            if found.shape != (len(bits),):
                raise ConfigError(
                    f"losses gives {list(found.shape)} for {len(bits)} rows of bits; it must give the loss of "
                    f"each row, [{len(bits)}]"
                )
            return found

        return cast(Estimate, self.estimator(flat, slope, of_rows, random))

    def step(self) -> None:
        """Train what the estimator itself learns (rebar and relax), after `forward`."""
        if self.estimator.optimizer is not None:
            self.estimator.optimizer.step()


def gradient_estimator(
    name: str, units: int, *, neuron: str = "sbn", samples: int | None = None, temperature: float | None = None
) -> GradientEstimator:
    """The estimator of that name (see `bgan train --estimator`) for so many neurons a row.

    Raises ConfigError for one that is unknown or takes another number, is not for these neurons, or is for GANs
    alone.
    """
    config = TrainingConfig.resolve(
        neuron=neuron,
        estimator=name,
        estimator_samples=samples,
        estimator_temperature=temperature,
        objective="gan",
    )
    if estimator_entry(name).needs_density_ratio:
        raise ConfigError(f"the estimator {name} needs the density ratio of a GAN's discriminator; choose another")
    return GradientEstimator(build_estimator(config, ImageShape(1, 1, units)))
