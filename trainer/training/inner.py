"""The gradient through the binary neurons within a generator: its gates, or its hidden layer.

Shapes: B batch, N inner neurons, C channels, H rows, W columns.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config.inner import InnerConfig
from ..config.training import NeuronConfig
from ..networks.gates import gate_penalty
from ..networks.inner import InnerPass
from ..networks.neurons import IDENTITY, REINMAX, SIGMOID_ADJUSTED, Number, OutputNeurons
from .estimators.base import Estimate, Estimator, draw_uniforms
from .estimators.build import build_inner_estimator
from .estimators.straight_through import BinaryConcrete, ThroughNeurons

_DERIVATIVES = (SIGMOID_ADJUSTED, IDENTITY, REINMAX)


class InnerEstimate(NamedTuple):
    """An estimate of the gradient by the generator's weights, its inner neurons included."""

    estimate: Estimate
    logits: Tensor
    """The image logits [B, C, H, W] that it was made at."""
    bits: Tensor
    """The inner bits [B, N] that gave them, without a graph; N is 0 without inner neurons."""


class LogitLosses:
    """The losses [B] of image logits [B, C, H, W], by one draw of the output neurons' noise for all calls.

    Their derivative is the one that stands in for the output neurons' in training, or that of `sigmoid-adjusted`.
    """

    def __init__(
        self, config: NeuronConfig, losses: Callable[[Tensor], Tensor], slope: Number, random: torch.Generator
    ) -> None:
        """`losses` [B] are those of images [B, C, H, W]; the draw is from `random`, at the first call."""
        derivative = config.estimator if config.estimator in _DERIVATIVES else SIGMOID_ADJUSTED
        self._neurons = OutputNeurons(config.training_neuron, estimator=derivative, slope=slope)
        self._losses, self._random = losses, random
        self._uniforms: Tensor | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """The losses of the images that the neurons make."""
        if self._neurons.needs_uniforms and self._uniforms is None:
            self._uniforms = draw_uniforms(logits, self._random)
        return self._losses(self._neurons(logits, self._uniforms))

    def relaxed(self, logits: Tensor) -> Tensor:
        """The losses of the probabilities in place of images: smooth in the logits."""
        return self._losses(torch.sigmoid(self._neurons.slope * logits))


class BitLosses:
    """The losses [B] of inner bits [B, N, 1, 1], given the pass that they are of."""

    def __init__(self, passed: InnerPass, losses: LogitLosses) -> None:
        self._passed, self._losses = passed, losses

    def __call__(self, bits: Tensor) -> Tensor:
        """Those of the images that the output neurons make."""
        return self._losses(self._passed.outputs(bits.flatten(1)))

    def relaxed(self, bits: Tensor) -> Tensor:
        """What estimators differentiate between 0 and 1, see `estimators.base.relaxed_losses`."""
        return self._losses.relaxed(self._passed.outputs(bits.flatten(1)))


class InnerNeurons(nn.Module):
    """Draws the inner neurons of a training, and estimates the gradient through them.

    Without inner neurons it does nothing, and draws no random numbers.
    """

    def __init__(self, config: InnerConfig, count: int) -> None:
        """Raises ConfigError where the estimator is an entry point that is broken."""
        super().__init__()
        self.config = config
        self.estimator = build_inner_estimator(config, count)

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """What trains the estimator's own parameters, if it has any."""
        return None if self.estimator is None else self.estimator.optimizer

    @torch.no_grad()
    def draw(self, passed: InnerPass, slope: Number, random: torch.Generator) -> Tensor:
        """Bits [B, N], without a graph."""
        if self.config.neuron is None:
            return passed.logits
        neurons = OutputNeurons(self.config.neuron, slope=slope)
        uniforms = draw_uniforms(passed.logits, random) if neurons.needs_uniforms else None
        bits: Tensor = neurons(passed.logits, uniforms)
        return bits

    def forward(
        self,
        passed: InnerPass,
        slope: Number,
        outer: Callable[[Tensor], Estimate],
        losses: LogitLosses,
        random: torch.Generator,
    ) -> InnerEstimate:
        """One estimate. `outer` makes that of the output neurons of image logits, `losses` their losses alone.

        What estimates by losses alone is given those of the other neurons' draws; a derivative that stands in for
        the neurons' passes on what `outer` gives.
        """
        if self.estimator is None:
            logits = passed.outputs(passed.logits)
            return InnerEstimate(outer(logits), logits, passed.logits)
        if isinstance(self.estimator, ThroughNeurons | BinaryConcrete):
            return self._through(self.estimator, passed, slope, outer, random)
        bits = self.draw(passed, slope, random)
        logits = passed.outputs(bits)
        estimate = outer(logits)
        inner = self.estimator(as_images(passed.logits), slope, BitLosses(passed, losses), random)
        return InnerEstimate(Estimate(estimate.surrogate + inner.surrogate, estimate.value), logits, bits)

    def _through(
        self,
        estimator: Estimator,
        passed: InnerPass,
        slope: Number,
        outer: Callable[[Tensor], Estimate],
        random: torch.Generator,
    ) -> InnerEstimate:
        found: list[InnerEstimate] = []

        def surrogate(bits: Tensor) -> Tensor:
            logits = passed.outputs(bits.flatten(1))
            found.append(InnerEstimate(outer(logits), logits, bits.detach().flatten(1)))
            return found[0].estimate.surrogate

        estimator(as_images(passed.logits), slope, surrogate, random)
        return found[0]

    def penalty(self, logits: Tensor, slope: Number) -> Tensor | None:
        """The weighted penalty of gates with logits [B, N]; None where the inner neurons are no gates."""
        own = self.config
        if own.gates is None:
            return None
        rate, weight, variance = own.gate_rate, own.gate_penalty, own.gate_variance
        assert own.gate_neuron is not None  # they follow from gates
        assert rate is not None
        assert weight is not None
        assert variance is not None
        return gate_penalty(
            logits, rate=rate, neuron=own.gate_neuron, slope=slope, weight=weight, variance=variance
        )


def as_images(logits: Tensor) -> Tensor:
    """[B, N] as [B, N, 1, 1], which estimators take."""
    return logits[:, :, None, None]
