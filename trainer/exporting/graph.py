"""The graph of a generator: batch norm folded, the slope baked in, neurons as ONNX operators."""

import copy
from abc import ABC, abstractmethod

import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ..common.errors import ExportError
from ..common.text import first_line
from ..networks.build import AnyGenerator
from ..networks.gates import GatedGenerator
from ..networks.generators import Generator
from ..networks.hidden import HiddenBinaryGenerator, split_at_last_rectifier
from ..networks.inner import inner_uniform_count
from ..networks.layers import AffineNorm, ImageDeconvolution
from ..networks.own import OwnGenerator
from ..networks.refiner import RefinedGenerator, refined_logits
from ..networks.trial import quiet_torch
from .gated_graph import GatedGraph
from .output_neurons import images_of, on
from .polyphase import polyphase
from .tracing import rows, traced

_OUTPUTS = ("images", "probabilities")


class Exported(nn.Module, ABC):
    """What a file computes: folded layers, sigmoid, comparison. It draws no noise."""

    def forward(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
        uniforms: Tensor | None = None,
        inner_uniforms: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(images uint8, probabilities float32) of the latents; without uniforms the threshold is 0.5."""
        return images_of(self.logits(latents, labels, inner_uniforms), uniforms)

    @abstractmethod
    def logits(self, latents: Tensor, labels: Tensor | None, inner_uniforms: Tensor | None) -> Tensor:
        """The logits of the latents, times the slope."""


class ExportedGenerator(Exported):
    """A file of one of bgan's generators."""

    def __init__(self, generator: Generator, slope: float, *, graph: str = "fast") -> None:
        super().__init__()
        self.layers = folded_generator(generator, slope, graph)
        self.inputs = generator.inputs

    def logits(self, latents: Tensor, labels: Tensor | None, inner_uniforms: Tensor | None) -> Tensor:
        """See `Exported`."""
        logits: Tensor = self.layers(self.inputs(latents, labels))
        return logits


class ExportedOwnGenerator(Exported):
    """The same of a generator of one's own, of whose layers nothing is known."""

    def __init__(self, generator: OwnGenerator, slope: float) -> None:
        super().__init__()
        self.generator, self.slope = generator, slope

    def logits(self, latents: Tensor, labels: Tensor | None, inner_uniforms: Tensor | None) -> Tensor:
        """See `Exported`."""
        logits: Tensor = self.slope * self.generator(latents, labels)
        return logits


class ExportedHiddenGenerator(Exported):
    """The same of a generator with a binary hidden layer."""

    def __init__(self, generator: HiddenBinaryGenerator, slope: float) -> None:
        super().__init__()
        layers = folded_layers(generator.generator.layers, slope)
        self.before, self.after = split_at_last_rectifier(layers)
        self.slope, self.inputs = slope, generator.generator.inputs

    def logits(self, latents: Tensor, labels: Tensor | None, inner_uniforms: Tensor | None) -> Tensor:
        """See `Exported`."""
        hidden = self.before(self.inputs(latents, labels))
        uniforms = None if inner_uniforms is None else torch.unflatten(inner_uniforms, 1, hidden.shape[1:])
        bits = on(torch.sigmoid(self.slope * hidden), uniforms)
        logits: Tensor = self.after(bits.to(hidden.dtype))
        return logits


class ExportedRefinedGenerator(Exported):
    """The same of a generator behind which a refiner stands."""

    def __init__(self, generator: RefinedGenerator, slope: float, *, graph: str = "fast") -> None:
        super().__init__()
        self.base = folded_generator(generator.base, 1.0, graph)  # the slope that real-valued neurons have
        self.refiner, self.slope = copy.deepcopy(generator.refiner), slope
        self.inputs = generator.base.inputs

    def logits(self, latents: Tensor, labels: Tensor | None, inner_uniforms: Tensor | None) -> Tensor:
        """See `Exported`."""
        logits: Tensor = self.slope * refined_logits(self.base(self.inputs(latents, labels)), self.refiner)
        return logits


def folded_generator(generator: Generator, slope: float, graph: str) -> nn.Sequential:
    """A generator's layers, from its inputs [B, Z + K] to logits times the slope, as a graph has them."""
    folded = folded_layers(generator.layers, slope)
    return polyphase(folded) if graph == "fast" else folded


def to_onnx(
    generator: AnyGenerator, slope: float, *, stochastic: bool, graph: str = "fast", is_routed: bool = True
) -> onnx.ModelProto:
    """The graph of a generator in eval mode, weights inside, batch norm folded and the slope baked in.

    A gated generator's parts run for the rows whose gate is on, or, where it is not to be routed, for all. Raises
    ExportError where torch cannot write one of one's own.
    """
    inputs = _inputs(generator, stochastic=stochastic)
    if isinstance(generator, OwnGenerator):
        try:
            with quiet_torch():
                return traced(ExportedOwnGenerator(generator, slope), inputs, _OUTPUTS)
        except Exception as error:  # torch.onnx raises many, and what raised the first of them says why
            root: BaseException = error
            while root.__cause__ is not None:
                root = root.__cause__
            reason = f"{type(root).__name__}: {first_line(root)}"
            raise ExportError(f"the generator {generator.name} cannot be written as ONNX ({reason})") from error
    if isinstance(generator, GatedGenerator):
        return gated_graph(generator, slope, stochastic=stochastic, graph=graph).model(is_routed=is_routed)
    if isinstance(generator, HiddenBinaryGenerator):
        return traced(ExportedHiddenGenerator(generator, slope), inputs, _OUTPUTS)
    if isinstance(generator, RefinedGenerator):
        return traced(ExportedRefinedGenerator(generator, slope, graph=graph), inputs, _OUTPUTS)
    assert isinstance(generator, Generator)
    return traced(ExportedGenerator(generator, slope, graph=graph), inputs, _OUTPUTS)


def gated_graph(generator: GatedGenerator, slope: float, *, stochastic: bool, graph: str = "fast") -> GatedGraph:
    """What gives the graphs of a gated generator, as `to_onnx` does."""
    inputs = _inputs(generator, stochastic=stochastic)
    return GatedGraph(generator, slope, inputs, lambda part: folded_generator(part, slope, graph))


def _inputs(generator: AnyGenerator, *, stochastic: bool) -> dict[str, Tensor]:
    inputs = {"latents": rows(generator.latent_size)}
    if generator.class_count:
        inputs["labels"] = rows(dtype=torch.int64)
    if stochastic:
        inputs["uniforms"] = rows(*generator.image_shape)
    if inner := inner_uniform_count(generator):
        inputs["inner_uniforms"] = rows(inner)
    return inputs


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
