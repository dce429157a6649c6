"""Conditional computation: a generator that decides by binary gates, image by image, which of its parts run.

logits = trunk(x) + sum_e g_e part_e(x), x being the latents and the label. The trunk and each of the E parts are
generators of one family, narrower than the whole: groups of the hidden units of an MLP, or of the channels of a
CNN. Training computes all parts and multiplies by the gates; what is exported runs a part for the rows alone whose
gate is on. After the conditional computation of Bengio et al. 2013 and of Bengio et al. 2015 (arXiv 1511.06297).

Shapes: B batch, Z latent size, K classes, E parts.
"""

from collections.abc import Callable, Sequence
from statistics import NormalDist

import torch
from torch import Tensor, nn

from .generators import Generator
from .inner import InnerGenerator, InnerPass
from .neurons import Number

_NEVER_OFF = 1 - 2**-50  # a rate of 1, for which the normal distribution has no quantile


class GatedGenerator(InnerGenerator):
    """A trunk that always runs, and parts behind gates."""

    def __init__(self, trunk: Generator, parts: Sequence[Generator], *, neuron: str, by: str, rate: float) -> None:
        """`by` says what gates see: "latents" (and labels), "labels", or "random" directions of the latents."""
        super().__init__(neuron)
        self.image_shape, self.class_count = trunk.image_shape, trunk.class_count
        self.latent_size, self.inner_count = trunk.latent_size, len(parts)
        self.trunk, self.parts, self.by = trunk, nn.ModuleList(parts), by
        features = {
            "latents": trunk.latent_size + trunk.class_count,
            "labels": trunk.class_count,
            "random": trunk.latent_size,
        }
        self.gate = nn.Linear(features[by], len(parts))
        if by == "random":
            self._fix_directions(rate)

    def inner_pass(self, latents: Tensor, labels: Tensor | None = None) -> InnerPass:
        """See `InnerGenerator`; the inner neurons are the gates."""
        inputs = self.trunk.inputs(latents, labels)

        def outputs(gates: Tensor) -> Tensor:
            return masked_sum(base, gates, computed)

        base = self.trunk(latents, labels)
        computed = [part(latents, labels) for part in self.parts]
        return InnerPass(self.gate_logits(inputs), outputs)

    def gate_logits(self, inputs: Tensor) -> Tensor:
        """The logits [B, E] of the gates, of the inputs of the trunk [B, Z + K]."""
        seen = {
            "latents": inputs,
            "labels": inputs[:, self.latent_size :],
            "random": inputs[:, : self.latent_size],
        }
        logits: Tensor = self.gate(seen[self.by])
        return logits

    @torch.no_grad()
    def _fix_directions(self, rate: float) -> None:
        """Of standard normal latents, w x + quantile(rate) is above 0 in a share `rate` of them, if |w| = 1."""
        self.gate.requires_grad_(False)
        weight = torch.randn(self.gate.weight.shape)
        self.gate.weight.copy_(weight / weight.norm(dim=1, keepdim=True))
        self.gate.bias.fill_(NormalDist().inv_cdf(min(rate, _NEVER_OFF)))


def masked_sum(base: Tensor, gates: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """The sum base + sum_e g_e output_e of gates [B, E] and outputs [B, ...] that were all computed."""
    for gate, output in zip(gates.unbind(dim=1), outputs, strict=True):
        base = base + gate.view(-1, *[1] * (output.ndim - 1)) * output
    return base


def routed_sum(base: Tensor, gates: Tensor, parts: Sequence[Callable[[Tensor], Tensor]], inputs: Tensor) -> Tensor:
    """The sum base + sum_e g_e part_e(inputs), each part computed for the rows whose gate in bool [B, E] is on.

    torch.onnx writes it as NonZero, Gather and ScatterND, with a number of rows that the data decide.
    """
    for index, part in enumerate(parts):
        rows = gates[:, index].nonzero().squeeze(1)
        output = part(inputs.index_select(0, rows))
        base = base.index_add(0, rows, output.to(base.dtype))  # another one under autocast
    return base


def gate_penalty(
    logits: Tensor, *, rate: float, neuron: str, slope: Number = 1.0, weight: float = 1.0, variance: float = 0.0
) -> Tensor:
    """The penalty weight * sum_e (mean_i a_ie - rate)^2 - variance * sum_e Var_i p_ie, of gates' logits [B, E].

    a_ie is how far gate e is on in row i, and p_ie the probability that it is. The first term is that of Bengio et
    al. 2015, section 3.2, held for each gate, so that it balances their load; the second rewards gates that differ
    from row to row.
    """
    penalty = weight * (_activity(logits, neuron, slope).mean(dim=0) - rate).square().sum()
    if variance:
        penalty = penalty - variance * torch.sigmoid(slope * logits).var(dim=0, correction=0).sum()
    return penalty


def _activity(logits: Tensor, neuron: str, slope: Number) -> Tensor:
    """How far gates of logits [B, E] are on: bits of deterministic ones, probabilities of stochastic ones.

    The derivative by slope * logits is taken for 1, so that a gate that never fires can come back.
    """
    scaled = slope * logits
    values = torch.sigmoid(scaled) if neuron == "sbn" else (scaled > 0).to(logits.dtype)
    return values.detach() + scaled - scaled.detach()
