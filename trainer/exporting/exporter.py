"""Exporting a run's generator as one ONNX file, checked against the generator in double precision."""

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf import json_format
from torch import Tensor

from bgan.v1 import model_pb2

from ..common.errors import ConfigError, ExportError, SamplesError
from ..common.files import as_text, write_atomically
from ..common.rng import random_stream
from ..config.command import check_name
from ..config.training import TrainingConfig
from ..networks.build import AnyGenerator
from ..networks.gates import GatedGenerator
from ..networks.inner import InnerGenerator, draw_inner_uniforms, generator_logits
from ..networks.own import OwnGenerator
from ..networks.refiner import RefinedGenerator
from ..training.checkpoint import Checkpoint, trained_generator
from ..training.run import Run, trained_checkpoint
from .graph import gated_graph, to_onnx
from .inner import certain_rows, check_routing, describe_inner
from .integer_export import proved, to_integers
from .model_file import MANIFEST_KEY, NEURONS, OnnxModel, open_session
from .served_operators import refused_operators

BINARIZATIONS = {"threshold": model_pb2.BINARIZATION_THRESHOLD, "bernoulli": model_pb2.BINARIZATION_BERNOULLI}
GRAPHS = ("fast", "plain")
ARITHMETICS = ("float", "integer")
_CHECKED_ROWS = 1024
_CHECKED_PIXELS = 2**22  # of all rows together: large images are checked on fewer of them
_TOLERANCE = 1e-5
_ROUNDED_TOLERANCE = 1e-4  # of a generator that is known in single precision alone


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """An exported file, and the result of comparing its images with torch's."""

    path: Path
    """The file among the models to serve."""
    rows: int
    """Images compared; those of an integer file are also those of numpy's integers, in all bits."""
    bits: int
    """Pixels compared."""
    differing_bits: int
    """Pixels that differ; in a float file each has a probability within a rounding error of its threshold."""
    largest_error: float
    """The largest difference between onnxruntime's probabilities and torch's, in double precision for floats."""
    on_fraction: float
    left_out: int = 0
    """Images not compared, since rounding decides an inner neuron of theirs."""
    parts: int = 0
    """Parts behind gates: run for the rows whose gate is on, they gave the same bytes as run for all rows."""


def export_run(
    run: Run,
    models: Path,
    *,
    name: str | None = None,
    binarization: str | None = None,
    graph: str = "fast",
    arithmetic: str = "float",
    overwrite: bool = False,
    warn: Callable[[str], None] = warnings.warn,
) -> ExportResult:
    """Export the newest checkpoint of a run into its folder and into the folder of models to serve.

    `graph` is "fast" or, with the transposed convolutions of a CNN as they were trained, "plain". `arithmetic` is
    "float" or "integer", whose bits are the same on every machine.
    `warn` is called with a line for each damaged checkpoint that is passed over, and where an own generator has
    operators that the server does not run. Raises ExportError, and leaves no file, if the file does not do what
    the generator does or, without `overwrite`, would replace one of another run; ConfigError for a bad option.
    """
    if graph not in GRAPHS:
        raise ConfigError(f"graph is {graph!r}; choose one of {', '.join(GRAPHS)}")
    if arithmetic not in ARITHMETICS:
        raise ConfigError(f"arithmetic is {arithmetic!r}; choose one of {', '.join(ARITHMETICS)}")
    if arithmetic == "integer" and graph != "fast":
        raise ConfigError("integer files have a graph of their own; leave out --graph or --arithmetic")
    config = run.config()
    checkpoint = trained_checkpoint(run, warn)
    binarization = binarization or ("bernoulli" if config.neurons.neuron == "sbn" else "threshold")
    manifest = _manifest(run, config, checkpoint, name or run.name, binarization)
    path = models / f"{manifest.name}.onnx"
    if models.exists() and not models.is_dir():
        raise ExportError(f"{models} is a file; name a folder of models, or a file .onnx")
    if not overwrite:
        _check_replaced(path, manifest)

    generator, slope = trained_generator(config, checkpoint, given=run.given), checkpoint.meta.slope
    stochastic = binarization != "threshold"
    describe_inner(manifest, config, generator, slope)
    if arithmetic == "integer":
        model, result = _integer_model(path, manifest, generator, slope, stochastic=stochastic)
    elif isinstance(generator, GatedGenerator):
        graphs = gated_graph(generator, slope, stochastic=stochastic, graph=graph)
        model = graphs.model()
        result = _checked(path, model, generator, slope, stochastic=stochastic)
        check_routing(model, graphs.model(is_routed=False), _checked_inputs(generator, stochastic=stochastic))
        result = replace(result, parts=generator.inner_count)
    else:
        model = to_onnx(generator, slope, stochastic=stochastic, graph=graph)
        result = _checked(path, model, generator, slope, stochastic=stochastic)

    if refused := refused_operators(model):
        warn(
            f"`bgan serve` and `bgan generate` will refuse {path.name}, which has the operators "
            f"{', '.join(refused)}: they run feed-forward ones, without loops and noise (docs/serving.md)"
        )
    manifest.metrics["on_fraction"] = result.on_fraction
    onnx.helper.set_model_props(model, {MANIFEST_KEY: json_format.MessageToJson(manifest)})
    content = model.SerializeToString()
    write_atomically(run.folder / path.name, content)
    write_atomically(path, content)
    return result


def _check_replaced(path: Path, manifest: model_pb2.Model) -> None:
    """Raise ExportError where the file is there, and is not of the manifest's run."""
    if not path.is_file():
        return
    try:
        old = OnnxModel(path).manifest
        found = f"a model of the run {old.training_run.name!r}, seed {old.training_run.seed}"
    except SamplesError:
        old, found = model_pb2.Model(), "no model that `bgan export` wrote"
    same = [_run_of(each) for each in (old, manifest)]
    if same[0] != same[1]:
        raise ExportError(f"{path} is {found}; choose another --name, or replace it with --overwrite")


def _run_of(manifest: model_pb2.Model) -> tuple[object, ...]:
    """What tells the run of a model from others; its steps may have become more."""
    run = manifest.training_run
    return run.name, run.seed, run.objective, run.neuron, manifest.network, manifest.dataset


def _integer_model(
    path: Path, manifest: model_pb2.Model, generator: AnyGenerator, slope: float, *, stochastic: bool
) -> tuple[onnx.ModelProto, ExportResult]:
    """The integer file, proved; its manifest says so. Raises ExportError."""
    if isinstance(generator, OwnGenerator):
        raise ExportError(
            f"integer files are made of the layers of bgan's generators, and {generator.name} has others; leave "
            "out --arithmetic"
        )
    if isinstance(generator, InnerGenerator):
        what = "gates" if isinstance(generator, GatedGenerator) else "hidden neurons"
        raise ExportError(
            f"the {what} of {manifest.name} are decided by floats, whose last bits differ between machines, and "
            "integers decide all bits of an integer file; leave out --arithmetic"
        )
    if isinstance(generator, RefinedGenerator):
        raise ExportError(
            f"{manifest.name} has a refiner, which sees the output of real-valued neurons, and integer files have "
            "none; leave out --arithmetic"
        )
    model, integers = to_integers(generator, slope, stochastic=stochastic)
    proof = proved(model, integers, generator, slope, tuple(manifest.class_counts))
    manifest.arithmetic = model_pb2.ARITHMETIC_INTEGER
    manifest.images_sha256 = proof.images_sha256
    figures = {name: getattr(proof, name) for name in ("rows", "bits", "differing_bits", "largest_error")}
    return model, ExportResult(path=path, on_fraction=proof.on_fraction, **figures)


def _checked(
    path: Path, model: onnx.ModelProto, generator: AnyGenerator, slope: float, *, stochastic: bool
) -> ExportResult:
    """Run the file and the unfolded generator on the same rows. Raises ExportError if they disagree.

    Both round: what is exact is the generator in double precision, and torch's own error, which grows with
    the logits, is the measure of the file's.
    """
    onnx.checker.check_model(model, full_check=True)
    inputs = _checked_inputs(generator, stochastic=stochastic)
    latents, labels = inputs["latents"], inputs.get("labels")
    inner = inputs.get("inner_uniforms")
    with torch.no_grad():
        logits = generator_logits(generator, latents, labels, slope=slope, inner_uniforms=inner)
        rounded = torch.sigmoid(slope * logits).numpy()
        expected = torch.sigmoid(slope * _exact_logits(generator, latents, labels, slope, inner)).numpy()
    is_exact = expected.dtype == np.float64
    session = open_session(model.SerializeToString())
    feeds = {name: tensor.numpy() for name, tensor in inputs.items()}
    images, probabilities = session.run(["images", "probabilities"], feeds)
    if images.dtype != np.uint8 or images.shape != expected.shape or probabilities.shape != expected.shape:
        raise ExportError(f"the exported graph gives {images.dtype} {images.shape}, not uint8 {expected.shape}")

    # Where an inner neuron is within a rounding error of firing, another bit of it is no fault.
    rows = certain_rows(generator, latents, labels, slope, inner)
    threshold = feeds["uniforms"][rows] if stochastic else np.float32(0.5)
    images, probabilities, rounded, expected = (each[rows] for each in (images, probabilities, rounded, expected))
    allowed = max(_TOLERANCE, 2 * float(np.abs(rounded - expected).max())) if is_exact else _ROUNDED_TOLERANCE
    largest_error = float(np.abs(probabilities - expected).max())
    if not largest_error <= allowed:
        raise ExportError(
            f"the exported graph's probabilities are up to {largest_error:.2e} away from torch's in double "
            f"precision; at most {allowed:.1e} is allowed"
        )
    differing = images.astype(bool) != (expected > threshold)
    if (differing & (np.abs(expected - threshold) > allowed)).any():
        raise ExportError("the exported graph sets other bits than torch does, away from the threshold")
    return ExportResult(
        path=path,
        rows=len(images),
        left_out=len(latents) - len(images),
        bits=images.size,
        differing_bits=int(differing.sum()),
        largest_error=largest_error,
        on_fraction=float(images.mean()),
    )


def _exact_logits(
    generator: AnyGenerator, latents: Tensor, labels: Tensor | None, slope: float, inner: Tensor | None
) -> Tensor:
    """The logits in double precision; in single precision where code of one's own knows no other."""
    try:
        exact = copy.deepcopy(generator).double()
        logits = generator_logits(exact, latents.double(), labels, slope=slope, inner_uniforms=inner)
    except RuntimeError:
        if not isinstance(generator, OwnGenerator):
            raise
        logits = generator(latents, labels)
    return logits


def _checked_inputs(generator: AnyGenerator, *, stochastic: bool) -> dict[str, Tensor]:
    random = random_stream(0, "export check")
    rows = max(1, min(_CHECKED_ROWS, _CHECKED_PIXELS // math.prod(generator.image_shape)))
    inputs = {"latents": torch.randn(rows, generator.latent_size, generator=random)}
    if stochastic:
        inputs["uniforms"] = torch.rand(rows, *generator.image_shape, generator=random)
    if generator.class_count:
        inputs["labels"] = torch.arange(rows) % generator.class_count
    if (inner := draw_inner_uniforms(generator, rows, random)) is not None:
        inputs["inner_uniforms"] = inner
    return inputs


def _manifest(
    run: Run, config: TrainingConfig, checkpoint: Checkpoint, name: str, binarization: str
) -> model_pb2.Model:
    if binarization not in BINARIZATIONS:
        raise ConfigError(f"binarization is {binarization!r}; choose one of {', '.join(BINARIZATIONS)}")
    check_name(name)
    meta = checkpoint.meta
    return model_pb2.Model(
        name=name,
        neuron=NEURONS[config.neurons.neuron],
        binarization=BINARIZATIONS[binarization],
        network=config.networks.network,
        latent_size=config.networks.latent_size,
        image_shape=model_pb2.ImageShape(**meta.image_shape._asdict()),
        slope=meta.slope,
        dataset=config.data.dataset,
        training_run=model_pb2.TrainingRun(
            name=as_text(run.name),
            step=meta.step,
            epoch=meta.epoch,
            seed=config.run.seed,
            objective=config.objective.objective,
            neuron=NEURONS[config.neurons.training_neuron],
        ),
        bgan_version=version("bgan"),
        classes=meta.classes,
        class_counts=meta.class_counts,
    )
