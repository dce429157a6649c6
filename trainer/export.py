"""Export: a run's generator as one self-contained ONNX file that has been checked against torch.

Inputs are `latents` float32 [batch, latent_size], for Bernoulli binarization `uniforms` float32 [batch,
channels, height, width] in [0, 1), and for a generator of classes `labels` int64 [batch]; outputs are `images`
uint8 and `probabilities` float32 of that same shape. The batch is the only dynamic dimension.
"""

from __future__ import annotations

import copy
import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf import json_format
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from bgan.v1 import model_pb2

from .checkpoint import Checkpoint, trained_generator
from .config import TrainingConfig
from .errors import ConfigError, ExportError
from .files import write_atomically
from .model_file import MANIFEST_KEY, open_session
from .networks import AffineNorm, Generator, ImageDeconvolution
from .polyphase import polyphase
from .randomness import random_stream
from .run import Run, trained_checkpoint

OPSET = 20
BINARIZATIONS = {
    "threshold": model_pb2.BINARIZATION_THRESHOLD,
    "bernoulli": model_pb2.BINARIZATION_BERNOULLI,
}
GRAPHS = ("fast", "plain")
_NEURONS = {
    "dbn": model_pb2.NEURON_DETERMINISTIC,
    "sbn": model_pb2.NEURON_STOCHASTIC,
    "real": model_pb2.NEURON_REAL,
}
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CHECKED_ROWS = 1024
_CHECKED_PIXELS = 2**22  # of all rows together: large images are checked on fewer of them
_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class ExportResult:
    """An exported file and what its check found."""

    path: Path
    """The file among the models to serve."""
    rows: int
    """Images compared."""
    largest_error: float
    """The largest difference between onnxruntime's probabilities and torch's in double precision."""
    differing_bits: int
    """Pixels that differ; each has a probability within a rounding error of its threshold."""
    bits: int
    """Pixels compared."""


class ExportedGenerator(nn.Module):
    """What the file computes: folded layers, sigmoid, comparison. Noise comes in, none is drawn."""

    def __init__(self, generator: Generator, slope: float, *, graph: str = "fast") -> None:
        super().__init__()
        folded = _folded(generator.layers, slope)
        self.layers = polyphase(folded) if graph == "fast" else folded

    def forward(self, latents: Tensor, uniforms: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(images uint8, probabilities float32) of the latents; without uniforms the threshold is 0.5."""
        probabilities = torch.sigmoid(self.layers(latents))
        images = probabilities > 0.5 if uniforms is None else uniforms < probabilities
        return images.to(torch.uint8), probabilities


class ExportedConditionalGenerator(ExportedGenerator):
    """The same for a generator of classes, whose labels come in as numbers."""

    def __init__(self, generator: Generator, slope: float, *, graph: str = "fast") -> None:
        super().__init__(generator, slope, graph=graph)
        self.inputs = generator.inputs

    def forward(  # type: ignore[override]
        self, latents: Tensor, labels: Tensor, uniforms: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `ExportedGenerator`; labels are int64 [B]."""
        return super().forward(self.inputs(latents, labels), uniforms)


def export_run(
    run: Run,
    models: Path,
    *,
    name: str | None = None,
    binarization: str | None = None,
    graph: str = "fast",
    warn: Callable[[str], None] = warnings.warn,
) -> ExportResult:
    """Export the newest checkpoint of a run into its folder and into the folder of models to serve.

    `graph` is "fast" or, with the transposed convolutions of a CNN as they were trained, "plain".
    `warn` hears of damaged checkpoints that were passed over. Raises ExportError if the file does not
    do what the generator does, and leaves no file then.
    """
    if graph not in GRAPHS:
        raise ConfigError(f"graph is {graph!r}; choose one of {', '.join(GRAPHS)}")
    config = run.config()
    checkpoint = trained_checkpoint(run, warn)
    binarization = binarization or ("bernoulli" if config.neuron == "sbn" else "threshold")
    manifest = _manifest(run, config, checkpoint, name or run.name, binarization)

    generator = trained_generator(config, checkpoint)
    latents, uniforms, labels = _check_inputs(generator, binarization)
    model = to_onnx(generator, checkpoint.progress.slope, stochastic=uniforms is not None, graph=graph)
    result = _check(model, generator, checkpoint.progress.slope, latents, uniforms, labels)

    manifest.metrics["on_fraction"] = result.on_fraction
    onnx.helper.set_model_props(model, {MANIFEST_KEY: json_format.MessageToJson(manifest)})
    content = model.SerializeToString()
    path = models / f"{manifest.name}.onnx"
    write_atomically(run.folder / path.name, content)
    write_atomically(path, content)
    return ExportResult(path, len(latents), result.largest_error, result.differing_bits, result.bits)


def to_onnx(generator: Generator, slope: float, *, stochastic: bool, graph: str = "fast") -> onnx.ModelProto:
    """The graph of a generator in eval mode, weights inside, batch norm folded and the slope baked in."""
    shape = generator.image_shape
    inputs: dict[str, Tensor] = {"latents": torch.zeros(2, generator.latent_size)}
    kind = ExportedGenerator
    if generator.class_count:
        inputs["labels"] = torch.zeros(2, dtype=torch.int64)
        kind = ExportedConditionalGenerator
    if stochastic:
        inputs["uniforms"] = torch.zeros(2, *shape)
    batch = torch.export.Dim("batch", min=1)
    with _quiet_exporter():
        program = torch.onnx.export(
            kind(generator, slope, graph=graph).eval(),
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=["images", "probabilities"],
            dynamic_shapes=tuple({0: batch} for _ in inputs),
        )
    assert program is not None
    model = program.model_proto
    _strip_traces(model)
    return model


@dataclass(frozen=True, slots=True)
class _Check:
    largest_error: float
    differing_bits: int
    bits: int
    on_fraction: float


def _check(
    model: onnx.ModelProto,
    generator: Generator,
    slope: float,
    latents: Tensor,
    uniforms: Tensor | None,
    labels: Tensor | None,
) -> _Check:
    """Run the file and the unfolded generator on the same rows. Raises ExportError if they disagree.

    Both round: what is exact is the generator in double precision, and torch's own error, which grows with
    the logits, is the measure of the file's.
    """
    onnx.checker.check_model(model, full_check=True)
    with torch.no_grad():
        rounded = torch.sigmoid(slope * generator(latents, labels)).numpy()
        exact_logits = copy.deepcopy(generator).double()(latents.double(), labels)
        expected = torch.sigmoid(slope * exact_logits).numpy()
    allowed = max(_TOLERANCE, 2 * float(np.abs(rounded - expected).max()))
    inputs = {"latents": latents, "uniforms": uniforms, "labels": labels}
    feeds = {name: tensor.numpy() for name, tensor in inputs.items() if tensor is not None}
    session = open_session(model.SerializeToString())
    images, probabilities = session.run(["images", "probabilities"], feeds)

    if images.dtype != np.uint8 or images.shape != expected.shape or probabilities.shape != expected.shape:
        raise ExportError(f"the exported graph gives {images.dtype} {images.shape}, not uint8 {expected.shape}")
    largest_error = float(np.abs(probabilities - expected).max())
    if not largest_error <= allowed:
        raise ExportError(
            f"the exported graph's probabilities are up to {largest_error:.2e} away from torch's in double "
            f"precision; at most {allowed:.1e} is allowed"
        )
    threshold = np.float32(0.5) if uniforms is None else uniforms.numpy()
    differing = images.astype(bool) != (expected > threshold)
    if (differing & (np.abs(expected - threshold) > allowed)).any():
        raise ExportError("the exported graph sets other bits than torch does, away from the threshold")
    return _Check(largest_error, int(differing.sum()), images.size, float(images.mean()))


def _check_inputs(generator: Generator, binarization: str) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Latents, and uniforms and labels where the file takes them."""
    random = random_stream(0, "export check")
    rows = max(1, min(_CHECKED_ROWS, _CHECKED_PIXELS // math.prod(generator.image_shape)))
    latents = torch.randn(rows, generator.latent_size, generator=random)
    uniforms = labels = None
    if binarization != "threshold":
        uniforms = torch.rand(rows, *generator.image_shape, generator=random)
    if generator.class_count:
        labels = torch.arange(rows) % generator.class_count
    return latents, uniforms, labels


def _manifest(
    run: Run, config: TrainingConfig, checkpoint: Checkpoint, name: str, binarization: str
) -> model_pb2.Model:
    if binarization not in BINARIZATIONS:
        raise ConfigError(f"binarization is {binarization!r}; choose one of {', '.join(BINARIZATIONS)}")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"name is {name!r}; use at most 128 letters, digits, '.', '_' and '-'")
    progress = checkpoint.progress
    return model_pb2.Model(
        name=name,
        neuron=_NEURONS[config.neuron],
        binarization=BINARIZATIONS[binarization],
        network=config.network,
        latent_size=config.latent_size,
        image_shape=model_pb2.ImageShape(**progress.image_shape._asdict()),
        slope=progress.slope,
        dataset=config.dataset,
        training_run=model_pb2.TrainingRun(
            name=run.name,
            step=progress.step,
            epoch=progress.epoch,
            seed=config.seed,
            objective=config.objective,
            neuron=_NEURONS[config.training_neuron or config.neuron],
        ),
        bgan_version=version("bgan"),
        classes=progress.classes,
    )


def _folded(layers: nn.Sequential, slope: float) -> nn.Sequential:
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
        if isinstance(layer, nn.Linear):
            layer.weight.mul_(norm.scale(3))  # [out, in]
        else:
            layer.weight.mul_(norm.scale(4))  # [in, out, H, W]
        assert layer.bias is not None
        layer.bias.mul_(norm.scale(2)).add_(norm.bias)
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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
