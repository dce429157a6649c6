"""The graph of a generator: batch norm folded, the slope baked in, neurons as ONNX operators."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ..common.errors import ExportError
from ..common.text import first_line
from ..networks.build import AnyGenerator
from ..networks.generators import Generator
from ..networks.layers import AffineNorm, ImageDeconvolution
from ..networks.own import OwnGenerator
from ..networks.trial import quiet_torch
from .polyphase import polyphase

OPSET = 20


class ExportedGenerator(nn.Module):
    """What the file computes: folded layers, sigmoid, comparison. It draws no noise."""

    def __init__(self, generator: Generator, slope: float, *, graph: str = "fast") -> None:
        super().__init__()
        folded = folded_layers(generator.layers, slope)
        self.layers = polyphase(folded) if graph == "fast" else folded
        self.inputs = generator.inputs

    def forward(
        self, latents: Tensor, labels: Tensor | None = None, uniforms: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(images uint8, probabilities float32) of the latents; without uniforms the threshold is 0.5."""
        probabilities = torch.sigmoid(self.logits(latents, labels))
        images = probabilities > 0.5 if uniforms is None else uniforms < probabilities
        return images.to(torch.uint8), probabilities

    def logits(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """The logits of the latents, times the slope."""
        logits: Tensor = self.layers(self.inputs(latents, labels))
        return logits


class ExportedOwnGenerator(ExportedGenerator):
    """The same of a generator of one's own, of whose layers nothing is known."""

    def __init__(self, generator: OwnGenerator, slope: float) -> None:
        nn.Module.__init__(self)
        self.generator, self.slope = generator, slope

    def logits(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """The logits of the latents, times the slope."""
        logits: Tensor = self.slope * self.generator(latents, labels)
        return logits


def to_onnx(generator: AnyGenerator, slope: float, *, stochastic: bool, graph: str = "fast") -> onnx.ModelProto:
    """The graph of a generator in eval mode, weights inside, batch norm folded and the slope baked in.

    Raises ExportError where torch cannot write one of one's own.
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
    return _graph(ExportedGenerator(generator, slope, graph=graph), generator, stochastic=stochastic)


def _graph(exported: ExportedGenerator, generator: AnyGenerator, *, stochastic: bool) -> onnx.ModelProto:
    inputs: dict[str, Tensor] = {"latents": torch.zeros(2, generator.latent_size)}
    if generator.class_count:
        inputs["labels"] = torch.zeros(2, dtype=torch.int64)
    if stochastic:
        inputs["uniforms"] = torch.zeros(2, *generator.image_shape)
    batch = torch.export.Dim("batch", min=1)
    with _quiet_exporter():
        program = torch.onnx.export(
            exported.eval(),
            kwargs=inputs,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=["images", "probabilities"],
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
    return plain


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
