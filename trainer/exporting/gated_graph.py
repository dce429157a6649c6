"""The graph of a gated generator, with a path for the trunk and one for each part.

A path is traced once, with weights as its inputs, for all have one form: torch takes seconds for a path, and for a
graph of several more than in proportion. Shapes: B batch, E parts, R rows whose gate is on.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import cast

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.func import functional_call

from ..networks.gates import GatedGenerator
from ..networks.generators import Generator
from .graph_nodes import GraphNodes, batch_of
from .output_neurons import on
from .tracing import rows, traced

_STARTED = ("fires", "seen")


class GatedGraph:
    """A gated generator's graph: routed, it runs a part for the rows alone whose gate is on; masked, for all."""

    def __init__(
        self,
        generator: GatedGenerator,
        slope: float,
        inputs: Mapping[str, Tensor],
        layers: Callable[[Generator], nn.Sequential],
    ) -> None:
        """`inputs` [B, ...] are those of the graph; `layers` gives those of the trunk or a part, for the graph."""
        self.generator, self.slope, self.inputs = generator, slope, inputs
        self.trunk, self.parts = (
            layers(generator.trunk),
            [layers(cast(Generator, part)) for part in generator.parts],
        )

    def model(self, *, is_routed: bool = True) -> onnx.ModelProto:
        """The model, from latents and what else there is to `images`, `probabilities` and `gates`."""
        nodes, add_part = GraphNodes(), _routed if is_routed else _masked
        known = {name: name for name in (*self.inputs, *_STARTED)}
        nodes.include(self._start.graph, "start.", known)  # torch's names, which may be those of other nodes
        logits = self._path_logits(nodes, "trunk.", self.trunk, "seen")
        for number, part in enumerate(self.parts):
            gate = nodes.add("Gather", "fires", nodes.integers(number), axis=1)
            logits = add_part(nodes, logits, gate, partial(self._path_logits, nodes, f"parts.{number}.", part))
        nodes.add("Sigmoid", logits, output="probabilities")
        if "uniforms" in self.inputs:
            lit = nodes.add("Less", "uniforms", "probabilities")
        else:
            lit = nodes.add("Greater", "probabilities", nodes.number(0.5))
        nodes.add("Cast", lit, to=TensorProto.UINT8, output="images")
        nodes.add("Cast", "fires", to=TensorProto.UINT8, output="gates")
        return self._finished(nodes)

    def _finished(self, nodes: GraphNodes) -> onnx.ModelProto:
        shape = self.generator.image_shape
        inputs = [
            batch_of(name, helper.np_dtype_to_tensor_dtype(value.numpy().dtype), value.shape[1:])
            for name, value in self.inputs.items()
        ]
        outputs = [
            batch_of("images", TensorProto.UINT8, shape),
            batch_of("probabilities", TensorProto.FLOAT, shape),
            batch_of("gates", TensorProto.UINT8, [self.generator.inner_count]),
        ]
        return nodes.model("generator", inputs, outputs)

    def _path_logits(self, nodes: GraphNodes, prefix: str, layers: nn.Sequential, seen: str) -> str:
        """The logits of the trunk's or a part's layers, at inputs [B, Z + K]."""
        for name, weight in _weights(layers).items():
            nodes.constant(prefix + name, weight.numpy())
        nodes.include(self._path.graph, prefix, {"seen": seen})
        return f"{prefix}logits"

    @cached_property
    def _start(self) -> onnx.ModelProto:
        given = {name: value for name, value in self.inputs.items() if name != "uniforms"}
        return traced(_Start(self.generator, self.slope), given, _STARTED)

    @cached_property
    def _path(self) -> onnx.ModelProto:
        seen = rows(self.generator.latent_size + self.generator.class_count)
        return traced(_Path(self.trunk), {"seen": seen}, ["logits"], _weights(self.trunk))


def _routed(nodes: GraphNodes, logits: str, gate: str, part_logits: Callable[[str], str]) -> str:
    """Logits and, in the rows whose gate bool [B, 1] is on, those of a part: as `routed_sum`."""
    found = nodes.add("NonZero", nodes.add("Squeeze", gate, nodes.integers(1)))  # [1, R]
    seen = nodes.add("Gather", "seen", nodes.add("Squeeze", found, nodes.integers(0)), axis=0)
    places = nodes.add("Transpose", found, perm=[1, 0])
    return nodes.add("ScatterND", logits, places, part_logits(seen), reduction="add")


def _masked(nodes: GraphNodes, logits: str, gate: str, part_logits: Callable[[str], str]) -> str:
    """Logits and, in all rows, those of a part times its gate bool [B, 1]: as `masked_sum`."""
    gate = nodes.add("Unsqueeze", nodes.add("Cast", gate, to=TensorProto.FLOAT), nodes.integers(2, 3))
    return nodes.add("Add", logits, nodes.add("Mul", gate, part_logits("seen")))


class _Start(nn.Module):
    """What decides the gates, and what trunk and parts see."""

    def __init__(self, generator: GatedGenerator, slope: float) -> None:
        super().__init__()
        self.gate, self.slope = generator.gate, slope
        self.gate_logits, self.seen = generator.gate_logits, generator.trunk.inputs

    def forward(
        self, latents: Tensor, labels: Tensor | None = None, inner_uniforms: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Which gates are on, bool [B, E], and the inputs [B, Z + K]."""
        seen = self.seen(latents, labels)
        return on(torch.sigmoid(self.slope * self.gate_logits(seen)), inner_uniforms), seen


class _Path(nn.Module):
    """The layers of the trunk or a part, without their weights."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.names = list(_weights(layers))
        self.layers = (layers,)  # in a tuple it is no module of this one, which would bring its weights

    def forward(self, seen: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Logits [B, C, H, W] of inputs [B, Z + K]."""
        logits: Tensor = functional_call(self.layers[0], dict(zip(self.names, weights, strict=True)), (seen,))
        return logits


def _weights(layers: nn.Sequential) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in layers.named_parameters()}
