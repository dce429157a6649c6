"""Binary neurons and their straight-through gradients (Dong and Yang 2018, section 2; Bengio et al. 2013).

Shapes: logits, probabilities, uniforms and outputs are all [batch, channels, height, width].
A slope multiplies the logits in both directions; slope annealing (Chung et al. 2017) raises it by epoch.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..common.errors import ConfigError

SIGMOID_ADJUSTED = "sigmoid-adjusted"
IDENTITY = "identity"
REINMAX = "reinmax"
Number = float | Tensor
"""A number, or a tensor [] of it: what the recording of an iteration reads."""


class _StraightThrough(torch.autograd.Function):
    """Fires iff sigma(slope x) > threshold; backward, the chosen derivative stands in for the step's."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, threshold: Tensor | float, slope: Number, estimator: str) -> Tensor:
        probabilities = torch.sigmoid(slope * logits)
        output = (probabilities > threshold).to(logits.dtype)
        ctx.save_for_backward(probabilities, output)
        ctx.slope, ctx.estimator = slope, estimator
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        probabilities, output = ctx.saved_tensors
        if ctx.estimator == SIGMOID_ADJUSTED:
            gradient = gradient * probabilities * (1 - probabilities)
        elif ctx.estimator == REINMAX:
            gradient = gradient * (output - probabilities).abs() / 2
        return ctx.slope * gradient, None, None, None


def deterministic_binary(logits: Tensor, *, slope: Number = 1.0, estimator: str = SIGMOID_ADJUSTED) -> Tensor:
    """DBN(x) = 1 if sigma(slope x) > 0.5 else 0 (paper, equation 1).

    The gradient is slope * sigma'(slope x) times the incoming one (`sigmoid-adjusted`), or slope
    times it (`identity`).
    """
    return stochastic_binary(logits, 0.5, slope=slope, estimator=estimator)


def stochastic_binary(
    logits: Tensor, uniforms: Tensor | float, *, slope: Number = 1.0, estimator: str = SIGMOID_ADJUSTED
) -> Tensor:
    """SBN(x) = 1 if z < sigma(slope x) else 0 (paper, equation 2), z the `uniforms` in [0, 1).

    The gradient is that of `deterministic_binary`, or slope * |SBN(x) - sigma(slope x)| / 2 times the incoming
    one (`reinmax`): in expectation sigma' times the mean of the incoming ones at 0 and at 1.
    """
    bits: Tensor = _StraightThrough.apply(logits, uniforms, slope, estimator)  # type: ignore[no-untyped-call]
    return bits


def annealed_slope(epoch: int, *, rate: float, cap: float | None = None) -> float:
    """The slope in force in `epoch` (from 0): rate^epoch, at most `cap`. 1.1^19 = 6.116 in epoch 20."""
    try:
        slope = rate**epoch
    except OverflowError:
        slope = float("inf")
    return slope if cap is None else min(slope, cap)


_ESTIMATORS = {"sbn": (SIGMOID_ADJUSTED, IDENTITY, REINMAX), "dbn": (SIGMOID_ADJUSTED, IDENTITY)}


class OutputNeurons(nn.Module):
    """The output layer of a generator: logits to images, by neuron "dbn", "sbn" or "real"."""

    def __init__(self, neuron: str, *, estimator: str = SIGMOID_ADJUSTED, slope: Number = 1.0) -> None:
        super().__init__()
        self.neuron, self.estimator, self.slope = neuron, estimator, slope
        self.needs_uniforms = neuron == "sbn"

    def forward(self, logits: Tensor, uniforms: Tensor | None = None) -> Tensor:
        """Images of the logits: in {0, 1} for binary neurons, in (0, 1) for "real".

        Raises ValueError without uniforms for stochastic neurons.
        """
        if self.neuron == "real":
            return torch.sigmoid(self.slope * logits)
        if self.neuron == "dbn":
            return deterministic_binary(logits, slope=self.slope, estimator=self.estimator)
        if uniforms is None:
            raise ValueError("stochastic binary neurons need uniforms")
        return stochastic_binary(logits, uniforms, slope=self.slope, estimator=self.estimator)


class BinaryNeurons(OutputNeurons):
    """Binary neurons for any network: logits of any shape to 0 and 1, with a straight-through gradient.

    `neuron` is "sbn" (stochastic: 1 with probability sigma(slope x)) or "dbn" (1 where that is above 0.5);
    `estimator` the derivative that stands in for the step's: "sigmoid-adjusted", "identity" or, for "sbn",
    "reinmax". Raises ConfigError for others, and for a slope that is not above 0 and finite.
    """

    def __init__(self, neuron: str = "sbn", *, estimator: str = SIGMOID_ADJUSTED, slope: Number = 1.0) -> None:
        if neuron not in _ESTIMATORS:
            raise ConfigError(f"neuron is {neuron!r}; choose one of {', '.join(_ESTIMATORS)}")
        if estimator not in _ESTIMATORS[neuron]:
            raise ConfigError(
                f"estimator is {estimator!r}; choose one of {', '.join(_ESTIMATORS[neuron])} for {neuron}, or "
                "gradient_estimator()"
            )
        if not isinstance(slope, Tensor) and not 0 < slope < math.inf:
            raise ConfigError(f"slope is {slope}; it must be above 0 and finite")
        super().__init__(neuron, estimator=estimator, slope=slope)

    def forward(
        self, logits: Tensor, uniforms: Tensor | None = None, *, random: torch.Generator | None = None
    ) -> Tensor:
        """Bits of the logits, as floats of the same shape.

        Stochastic ones compare with `uniforms` in [0, 1), which are drawn from `random`, or torch's global
        generator, where there are none.
        """
        if self.needs_uniforms and uniforms is None:
            uniforms = torch.rand(logits.shape, generator=random, device=logits.device, dtype=logits.dtype)
        return super().forward(logits, uniforms)
