"""What can be explored: a run's generator or an exported model, as a function of latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bgan.v1 import model_pb2

from .checkpoint import trained_generator
from .data_choice import DataChoice
from .errors import SamplesError
from .image_shape import ImageShape
from .model_file import ModelFile
from .run import Run, find_run, trained_checkpoint

Probabilities = Callable[[NDArray[np.float32], NDArray[np.int64] | None], NDArray[np.float32]]
_OUTPUT = "exploration"
_NEURONS = {
    model_pb2.NEURON_DETERMINISTIC: "dbn",
    model_pb2.NEURON_STOCHASTIC: "sbn",
    model_pb2.NEURON_REAL: "real",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ExploredGenerator:
    """A trained generator, and what is known of it."""

    name: str
    network: str
    neuron: str
    """Its output neurons: "dbn", "sbn" or "real"."""
    training_neuron: str
    """Those that it was trained with."""
    is_stochastic: bool
    """Whether its images are drawn (on with probability p), else they are thresholded (on where p > 0.5)."""
    latent_size: int
    image_shape: ImageShape
    slope: float
    step: int
    """Generator iterations that it was trained for."""
    dataset: str
    """The data set that it was trained on."""
    data_dir: str | None
    """Where that lay, if it is known."""
    training_split: str
    """The part that it was trained on: "train" or "all"."""
    choice: DataChoice | None = None
    """Which images those are, as the run says; None: all that is known is `dataset`."""
    output: Path
    """The folder that its exploration goes to if no other is named."""
    probabilities: Probabilities
    """Latents, float32 [N, Z], to preactivated outputs, float32 [N, C, H, W] in [0, 1].

    A generator of classes takes their labels too, int64 [N].
    """
    classes: tuple[str, ...] = ()
    """The names of the classes that it makes images of."""


def open_source(source: str | None, runs_dir: Path, warn: Callable[[str], None]) -> ExploredGenerator:
    """A model file (.onnx), or the run of that name or folder, None being the newest one.

    `warn` hears of damaged checkpoints. Raises RunError or SamplesError where there is neither.
    """
    path = Path(source or "")
    if path.suffix == ".onnx":
        if not path.is_file():
            raise SamplesError(f"there is no file {source}; `bgan export` writes models")
        return _of_model(path)
    if path.is_file():
        raise SamplesError(f"{source} is neither the folder of a run nor a model (.onnx)")
    return _of_run(find_run(source, runs_dir), warn)


def _of_run(run: Run, warn: Callable[[str], None]) -> ExploredGenerator:
    config = run.config()
    checkpoint = trained_checkpoint(run, warn)
    progress = checkpoint.progress
    generator = trained_generator(config, checkpoint)

    @torch.no_grad()
    def probabilities(latents: NDArray[np.float32], labels: NDArray[np.int64] | None) -> NDArray[np.float32]:
        logits = generator(torch.from_numpy(latents), None if labels is None else torch.from_numpy(labels))
        outputs: NDArray[np.float32] = torch.sigmoid(progress.slope * logits).numpy()
        return outputs

    return ExploredGenerator(
        name=run.name,
        network=config.network,
        neuron=config.neuron,
        training_neuron=config.training_neuron or config.neuron,
        is_stochastic=config.neuron == "sbn",
        latent_size=config.latent_size,
        image_shape=progress.image_shape,
        slope=progress.slope,
        step=progress.step,
        dataset=config.dataset,
        data_dir=config.data_dir,
        training_split=config.training_split,
        choice=config.choice,
        output=run.folder / _OUTPUT,
        probabilities=probabilities,
        classes=progress.classes,
    )


def _of_model(path: Path) -> ExploredGenerator:
    model = ModelFile(path)
    manifest = model.manifest
    shape = manifest.image_shape
    if manifest.neuron not in _NEURONS:
        raise SamplesError(f"{path} does not say which neurons it has; export it anew")

    def probabilities(latents: NDArray[np.float32], labels: NDArray[np.int64] | None) -> NDArray[np.float32]:
        try:
            outputs = model.probabilities(latents, labels)
            return outputs.reshape(len(latents), shape.channels, shape.height, shape.width)
        except Exception as error:  # onnxruntime raises classes of its own that it does not export
            reason = str(error).strip().splitlines()[0]
            raise SamplesError(f"{path} does not run as its manifest says ({reason}); export it anew") from error

    return ExploredGenerator(
        name=manifest.name,
        network=manifest.network,
        neuron=_NEURONS[manifest.neuron],
        training_neuron=_NEURONS[manifest.training_run.neuron or manifest.neuron],
        is_stochastic=manifest.binarization == model_pb2.BINARIZATION_BERNOULLI,
        latent_size=manifest.latent_size,
        image_shape=ImageShape(shape.channels, shape.height, shape.width),
        slope=manifest.slope,
        step=manifest.training_run.step,
        dataset=manifest.dataset,
        data_dir=None,
        training_split="train",
        output=Path(_OUTPUT) / path.stem,
        probabilities=probabilities,
        classes=tuple(manifest.classes),
    )
