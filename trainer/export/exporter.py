"""Exporting a run's generator as one ONNX file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import onnx
from google.protobuf import json_format

from bgan.v1 import model_pb2

from ..common.errors import ConfigError
from ..common.files import write_atomically
from ..config.training import TrainingConfig
from ..training.checkpoint import Checkpoint, trained_generator
from ..training.run import Run, trained_checkpoint
from .check import ExportCheck, check_export
from .graph import to_onnx
from .model_file import MANIFEST_KEY, NEURONS

BINARIZATIONS = {"threshold": model_pb2.BINARIZATION_THRESHOLD, "bernoulli": model_pb2.BINARIZATION_BERNOULLI}
GRAPHS = ("fast", "plain")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult(ExportCheck):
    """An exported file and the result of its check."""

    path: Path
    """The file among the models to serve."""


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
    `warn` is called with a line for each damaged checkpoint that is passed over. Raises ExportError, and leaves
    no file, if the file does not do what the generator does; ConfigError for an invalid option.
    """
    if graph not in GRAPHS:
        raise ConfigError(f"graph is {graph!r}; choose one of {', '.join(GRAPHS)}")
    config = run.config()
    checkpoint = trained_checkpoint(run, warn)
    binarization = binarization or ("bernoulli" if config.neurons.neuron == "sbn" else "threshold")
    manifest = _manifest(run, config, checkpoint, name or run.name, binarization)

    generator = trained_generator(config, checkpoint)
    stochastic = binarization != "threshold"
    model = to_onnx(generator, checkpoint.meta.slope, stochastic=stochastic, graph=graph)
    check = check_export(model, generator, checkpoint.meta.slope, stochastic=stochastic)

    manifest.metrics["on_fraction"] = check.on_fraction
    onnx.helper.set_model_props(model, {MANIFEST_KEY: json_format.MessageToJson(manifest)})
    content = model.SerializeToString()
    path = models / f"{manifest.name}.onnx"
    write_atomically(run.folder / path.name, content)
    write_atomically(path, content)
    return ExportResult(path=path, **asdict(check))


def _manifest(
    run: Run, config: TrainingConfig, checkpoint: Checkpoint, name: str, binarization: str
) -> model_pb2.Model:
    if binarization not in BINARIZATIONS:
        raise ConfigError(f"binarization is {binarization!r}; choose one of {', '.join(BINARIZATIONS)}")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"name is {name!r}; use at most 128 letters, digits, '.', '_' and '-'")
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
            name=run.name,
            step=meta.step,
            epoch=meta.epoch,
            seed=config.run.seed,
            objective=config.objective.objective,
            neuron=NEURONS[config.neurons.training_neuron],
        ),
        bgan_version=version("bgan"),
        classes=meta.classes,
    )
