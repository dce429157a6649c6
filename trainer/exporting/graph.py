"""The graph of a generator: batch norm folded, the slope baked in, neurons as ONNX operators."""

import copy
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ..common.errors import ExportError
from ..common.text import first_line
from ..networks.build import AnyGenerator
from ..networks.gates import GatedGenerator, masked_sum, routed_sum
from ..networks.generators import Generator
from ..networks.hidden import HiddenBinaryGenerator, split_at_last_rectifier
from ..networks.inner import inner_uniform_count
from ..networks.layers import AffineNorm, ImageDeconvolution
from ..networks.own import OwnGenerator
from ..networks.refiner import RefinedGenerator, refined_logits
from ..networks.trial import quiet_torch
from .polyphase import polyphase

OPSET = 20


class Exported(nn.Module, ABC):
    """What a file computes: folded layers, sigmoid, comparison. It draws no noise."""

    outputs: tuple[str, ...] = ("images", "probabilities")

    def forward(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
        uniforms: Tensor | None = None,
        inner_uniforms: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """(images uint8, probabilities float32, ...) of the latents; without uniforms the threshold is 0.5."""
        logits, *others = self.logits(latents, labels, inner_uniforms)
        probabilities = torch.sigmoid(logits)
        return on(probabilities, uniforms).to(torch.uint8), probabilities, *others

    @abstractmethod
    def logits(self, latents: Tensor, labels: Tensor | None, inner_uniforms: Tensor | None) -> tuple[Tensor, ...]:
        """The logits of the latents, times the slope, and what else is given out."""


def on(probabilities: Tensor, uniforms: Tensor | None) -> Tensor:
    """Which neurons fire: those above 0.5, or above their uniform."""
    return probabilities > 0.5 if uniforms is None else uniforms < probabilities


class ExportedGenerator(Exported):
    """A file of one of bgan's generators."""

    def __init__(self, generator: Generator, slope: float, *, graph: str = "fast") -> None:
        super().__init__()
        self.layers = _folded(generator, slope, graph)
        self.inputs = generator.inputs

    def logits(self, latents: Tensor, labels: Tensor | None, inner_uniforms: Tensor | None) -> tuple[Tensor, ...]:
        """See `Exported`."""
        return (self.layers(self.inputs(latents, labels)),)


class ExportedOwnGenerator(Exported):
    """The same of a generator of one's own, of whose layers nothing is known."""

    def __init__(self, generator: OwnGenerator, slope: float) -> None:
        super().__init__()
        self.generator, self.slope = generator, slope

    def logits(self, latents: Tensor, labels: Tensor | None, inner_uniforms: Tensor | None) -> tuple[Tensor, ...]:
        """See `Exported`."""
        return (self.slope * self.generator(latents, labels),)


class ExportedGatedGenerator(Exported):
    """The same of a gated generator, which gives the gates, too.

    Routed, a part runs for the rows alone whose gate is on; else for all, and is multiplied by the gates.
    """

    outputs = ("images", "probabilities", "gates")

    def __init__(
        self, generator: GatedGenerator, slope: float, *, graph: str = "fast", is_routed: bool = True
    ) -> None:
        super().__init__()
        self.trunk = _folded(generator.trunk, slope, graph)
        self.parts = nn.ModuleList([_folded(part, slope, graph) for part in generator.own_parts])
        self.slope, self.is_routed = slope, is_routed
        self.inputs, self.gate_logits = generator.trunk.inputs, copy.deepcopy(generator).gate_logits

    def logits(self, latents: Tensor, labels: Tensor | None, inner_uniforms: Tensor | None) -> tuple[Tensor, ...]:
        """See `Exported`: the logits, and the gates uint8 [B, E]."""
        inputs = self.inputs(latents, labels)
        gates = on(torch.sigmoid(self.slope * self.gate_logits(inputs)), inner_uniforms)
        base: Tensor = self.trunk(inputs)
        if self.is_routed:
            logits = routed_sum(base, gates, list(self.parts), inputs)
        else:
            logits = masked_sum(base, gates.to(base.dtype), [part(inputs) for part in self.parts])
        return logits, gates.to(torch.uint8)


class ExportedHiddenGenerator(Exported):
    """The same of a generator with a binary hidden layer."""

    def __init__(self, generator: HiddenBinaryGenerator, slope: float) -> None:
        super().__init__()
        layers = folded_layers(generator.generator.layers, slope)
        self.before, self.after = split_at_last_rectifier(layers)
        self.slope, self.inputs = slope, generator.generator.inputs

    def logits(self, latents: Tensor, labels: Tensor | None, inner_uniforms: Tensor | None) -> tuple[Tensor, ...]:
        """See `Exported`."""
        hidden = self.before(self.inputs(latents, labels))
        uniforms = None if inner_uniforms is None else torch.unflatten(inner_uniforms, 1, hidden.shape[1:])
        bits = on(torch.sigmoid(self.slope * hidden), uniforms)
        return (self.after(bits.to(hidden.dtype)),)


class ExportedRefinedGenerator(Exported):
    """The same of a generator behind which a refiner stands."""

    def __init__(self, generator: RefinedGenerator, slope: float, *, graph: str = "fast") -> None:
        super().__init__()
        self.base = _folded(generator.base, 1.0, graph)  # the slope that real-valued neurons have
        self.refiner, self.slope = copy.deepcopy(generator.refiner), slope
        self.inputs = generator.base.inputs

    def logits(self, latents: Tensor, labels: Tensor | None, inner_uniforms: Tensor | None) -> tuple[Tensor, ...]:
        """See `Exported`."""
        return (self.slope * refined_logits(self.base(self.inputs(latents, labels)), self.refiner),)


def _folded(generator: Generator, slope: float, graph: str) -> nn.Sequential:
    folded = folded_layers(generator.layers, slope)
    return polyphase(folded) if graph == "fast" else folded


def to_onnx(
    generator: AnyGenerator, slope: float, *, stochastic: bool, graph: str = "fast", is_routed: bool = True
) -> onnx.ModelProto:
    """The graph of a generator in eval mode, weights inside, batch norm folded and the slope baked in.

    A gated generator's parts run for the rows whose gate is on, or, where it is not to be routed, for all. Raises
    ExportError where torch cannot write one of one's own.
    """
    if isinstance(generator, OwnGenerator):
        try:
            with quiet_torch():
                return _graph(ExportedOwnGenerator(generator, slope), generator, stochastic=stochastic)
        except Exception as error:  # torch.onnx raises many, and what raised the first of them says why
            root: BaseException = error
            while root.__cause__ is not None:
                root = root.__cause__
            reason = f"{type(root).__name__}: {first_line(root)}"
            raise ExportError(f"the generator {generator.name} cannot be written as ONNX ({reason})") from error
    if isinstance(generator, GatedGenerator):
        exported: Exported = ExportedGatedGenerator(generator, slope, graph=graph, is_routed=is_routed)
    elif isinstance(generator, HiddenBinaryGenerator):
        exported = ExportedHiddenGenerator(generator, slope)
    elif isinstance(generator, RefinedGenerator):
        exported = ExportedRefinedGenerator(generator, slope, graph=graph)
    else:
        assert isinstance(generator, Generator)
        exported = ExportedGenerator(generator, slope, graph=graph)
    return _graph(exported, generator, stochastic=stochastic)


def _graph(exported: Exported, generator: AnyGenerator, *, stochastic: bool) -> onnx.ModelProto:
    inputs: dict[str, Tensor] = {"latents": torch.zeros(2, generator.latent_size)}
    if generator.class_count:
        inputs["labels"] = torch.zeros(2, dtype=torch.int64)
    if stochastic:
        inputs["uniforms"] = torch.zeros(2, *generator.image_shape)
    if inner := inner_uniform_count(generator):
        inputs["inner_uniforms"] = torch.zeros(2, inner)
    batch = torch.export.Dim("batch", min=1)
    with _quiet_exporter():
        program = torch.onnx.export(
            exported.eval(),
            kwargs=inputs,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(exported.outputs),
            dynamic_shapes={name: {0: batch} for name in inputs},
        )
    if program is None:
        raise ExportError("torch.onnx gave no graph")
    model = program.model_proto  # a new one each time it is read
    _strip_traces(model)
    return model


def folded_layers(layers: nn.Sequential, slope: float) -> nn.Sequential:
    """Copy the layers in eval mode: batch norm folded into the layer before it, the slope into the last."""
    folded: list[nn.Module] = []
    for layer in copy.deepcopy(layers):
        if isinstance(layer, nn.BatchNorm1d):
            folded[-1] = fuse_linear_bn_eval(folded[-1], layer)  # type: ignore[type-var]
        elif isinstance(layer, AffineNorm):
            folded[-1] = _with_affine(folded[-1], layer)
        elif isinstance(layer, nn.BatchNorm2d):
            folded[-1] = fuse_conv_bn_eval(folded[-1], layer, transpose=True)  # type: ignore[type-var]
        else:
            folded.append(_plain(layer))
    last = next(layer for layer in reversed(folded) if isinstance(layer, nn.Linear | nn.ConvTranspose2d))
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(slope)
    return nn.Sequential(*folded)


def _plain(layer: nn.Module) -> nn.Module:
    """A transposed convolution by patches as what it is, which ONNX has an operator for."""
    if not isinstance(layer, ImageDeconvolution):
        return layer
    sizes = (layer.kernel_size, layer.stride, layer.padding)
    plain = nn.ConvTranspose2d(layer.in_channels, layer.out_channels, *sizes)  # type: ignore[arg-type]
    plain.load_state_dict(layer.state_dict())
    return plain.train(layer.training)


def _with_affine(layer: nn.Module, norm: AffineNorm) -> nn.Module:
    """A linear or transposed convolution layer that does what it and the norm after it do."""
    assert isinstance(layer, nn.Linear | nn.ConvTranspose2d)
    with torch.no_grad():
        # a norm is over dimension 1 of its inputs: [out, in] is multiplied by rows, [in, out, H, W] by columns
        layer.weight.mul_(norm.scale(3 if isinstance(layer, nn.Linear) else 4))
        layer.bias.mul_(norm.scale(2)).add_(norm.bias)  # type: ignore[union-attr]
    return layer


def _strip_traces(model: onnx.ModelProto) -> None:
    """Drop the exporter's stack traces: they name paths, and a file should depend on its weights alone."""
    graph = model.graph
    for part in (model, graph, *graph.input, *graph.output, *graph.value_info, *graph.initializer, *graph.node):
        del part.metadata_props[:]  # type: ignore[attr-defined]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's own notes off the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
        try:
            yield
        finally:
            logger.setLevel(level)
