"""Conditional computation for any network: parts that run for the rows alone whose binary gate is on.

Shapes: B batch, E parts.
"""

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn

from ..common.errors import ConfigError
from .gates import gate_penalty, masked_sum, routed_sum
from .neurons import SIGMOID_ADJUSTED, BinaryNeurons, Number


class GatedPass(NamedTuple):
    """What a forward pass of gated parts gives."""

    outputs: Tensor
    """base + sum_e g_e part_e(inputs), [B, ...]."""
    gates: Tensor
    """g: 0 and 1, floats [B, E]."""
    logits: Tensor
    """Those of the gates, [B, E], before the slope: what `GatedParts.penalty` takes."""

    @property
    def shares(self) -> Tensor:
        """The share of the rows for which each part ran, [E] in [0, 1]."""
        return self.gates.detach().mean(dim=0)


class GatedParts(nn.Module):
    """base + sum_e g_e part_e(inputs), with binary gates g_e of the inputs.

    In training mode all parts are computed, and multiplied by the gates, whose gradient is straight-through. In
    eval mode each part runs for the rows alone whose gate is on; torch.onnx.export writes that for any batch, as
    NonZero, Gather and ScatterND. After the conditional computation of Bengio et al. 2013 and of Bengio et al.
    2015 (arXiv 1511.06297).
    """

    def __init__(
        self,
        parts: Iterable[nn.Module],
        gate: nn.Module,
        *,
        rate: float = 0.25,
        neuron: str = "dbn",
        estimator: str = SIGMOID_ADJUSTED,
        slope: Number = 1.0,
    ) -> None:
        """`parts` map inputs [B, ...] to outputs of one shape [B, ...], row by row; `gate` to logits [B, E].

        `rate` in (0, 1] is the share of the rows for which `penalty` holds each part. `neuron`, `estimator` and
        `slope` are those of the gates, as of `BinaryNeurons` (`neurons.slope` may be set later): "dbn" or "sbn",
        and "sigmoid-adjusted", "identity" or, for "sbn", "reinmax". Any other estimator: see `combined`. Raises
        ConfigError for fewer than two parts, and for a rate, neuron or estimator that is not one of these.
        """
        super().__init__()
        self.parts, self.gate, self.rate = nn.ModuleList(parts), gate, rate
        if len(self.parts) < 2:
            raise ConfigError(f"there are {len(self.parts)} parts; gates choose among 2 or more")
        if not 0 < rate <= 1:
            raise ConfigError(f"rate is {rate}; it must be above 0 and at most 1")
        self.neurons = BinaryNeurons(neuron, estimator=estimator, slope=slope)

    def forward(self, inputs: Tensor, base: Tensor, uniforms: Tensor | None = None) -> GatedPass:
        """Of inputs [B, ...], and a base [B, ...] of the outputs' shape, such as those of a part without a gate.

        Stochastic gates fire where their uniform, of [B, E] in [0, 1), is below their probability; in training
        mode they are drawn by torch's global generator where there are none. Raises ValueError where they are
        missing in eval mode, since what is exported draws no noise, and where they, the gate's logits or, in
        training mode, the base have another shape.
        """
        if self.neurons.needs_uniforms and uniforms is None and not self.training:
            raise ValueError(f"stochastic gates need uniforms [B, {len(self.parts)}] in eval mode")
        logits = self.gate_logits(inputs)
        if uniforms is not None and uniforms.shape != logits.shape:  # gates that share one are not independent
            raise ValueError(f"uniforms are {list(uniforms.shape)}; they must be {list(logits.shape)}, one a gate")
        gates = self.neurons(logits, uniforms)
        return GatedPass(self.combined(inputs, base, gates), gates, logits)

    def gate_logits(self, inputs: Tensor) -> Tensor:
        """The logits [B, E] of the gates; raises ValueError where they have another shape."""
        logits: Tensor = self.gate(inputs)
        if logits.shape != (inputs.shape[0], len(self.parts)):  # len() would fix an exported batch
            raise ValueError(
                f"the gate gives {list(logits.shape)}; it must give a logit for each row and part, "
                f"[{inputs.shape[0]}, {len(self.parts)}]"
            )
        return logits

    def combined(self, inputs: Tensor, base: Tensor, gates: Tensor) -> Tensor:
        """The outputs [B, ...] for given gates [B, E]: of 0 and 1, and in training mode also between them.

        So that the gradient comes from any of `gradient_estimator`, which takes `gate_logits`, and losses [B] of
        the bits that it draws. Raises ValueError in training mode where the base has another shape than they.
        """
        if not self.training:
            return routed_sum(base, gates > 0.5, list(self.parts), inputs)
        outputs = masked_sum(base, gates, [part(inputs) for part in self.parts])
        if outputs.shape != base.shape:
            raise ValueError(
                f"the base is {list(base.shape)}; it must have the outputs' shape, {list(outputs.shape)}"
            )
        return outputs

    def penalty(self, logits: Tensor, *, variance: float = 0.0) -> Tensor:
        """To add to the loss, times a weight of about 1 to 10: sum_e (the batch's mean of gate e - rate)^2.

        Of the gates' logits [B, E]. It keeps all parts in use, each for that share of the rows. `variance` times
        sum_e Var_i p_ie is subtracted, where gates are to depend on the row (Bengio et al. 2015, section 3.2).
        """
        slope, neuron = self.neurons.slope, self.neurons.neuron
        return gate_penalty(logits, rate=self.rate, neuron=neuron, slope=slope, variance=variance)
