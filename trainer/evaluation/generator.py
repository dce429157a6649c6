"""Drawing samples from a trained generator: a run's newest checkpoint, or a model file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bgan.v1 import model_pb2

from ..common.errors import ConfigError, SamplesError
from ..common.image_shape import ImageShape
from ..common.rng import random_stream
from ..config.dataset import DatasetSpec
from ..export.model_file import OnnxModel
from ..training.checkpoint import trained_generator
from ..training.run import Run, find_run, trained_checkpoint
from .samples import Samples, chunks

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
    dataset_spec: DatasetSpec | None = None
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
    progress = checkpoint.meta
    generator = trained_generator(config, checkpoint)

    @torch.no_grad()
    def probabilities(latents: NDArray[np.float32], labels: NDArray[np.int64] | None) -> NDArray[np.float32]:
        logits = generator(torch.from_numpy(latents), None if labels is None else torch.from_numpy(labels))
        outputs: NDArray[np.float32] = torch.sigmoid(progress.slope * logits).numpy()
        return outputs

    return ExploredGenerator(
        name=run.name,
        network=config.networks.network,
        neuron=config.neurons.neuron,
        training_neuron=config.neurons.training_neuron or config.neurons.neuron,
        is_stochastic=config.neurons.neuron == "sbn",
        latent_size=config.networks.latent_size,
        image_shape=progress.image_shape,
        slope=progress.slope,
        step=progress.step,
        dataset=config.data.dataset,
        data_dir=config.data.data_dir,
        training_split=config.optimization.training_split,
        dataset_spec=config.data,
        output=run.folder / _OUTPUT,
        probabilities=probabilities,
        classes=progress.classes,
    )


def _of_model(path: Path) -> ExploredGenerator:
    model = OnnxModel(path)
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


@torch.no_grad()
def sample_run(
    run: Run,
    count: int,
    *,
    seed: int = 0,
    binarization: str | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> Samples:
    """`count` images of the run's newest checkpoint, as an exported generator would make them.

    Those of a generator of classes are of all classes alike. `binarization` is "threshold" or "bernoulli"; None
    is that of the run's neurons, threshold for the real-valued ones. Raises RunError where there is no checkpoint.
    """
    config = run.config()
    if binarization not in {None, "threshold", "bernoulli"}:
        raise ConfigError(f"binarization is {binarization!r}; choose one of threshold, bernoulli")
    checkpoint = trained_checkpoint(run, warn)
    generator = trained_generator(config, checkpoint)
    bernoulli = binarization == "bernoulli" or (binarization is None and config.neurons.neuron == "sbn")
    random = random_stream(seed, "evaluation")
    images, probabilities, labels = [], [], []
    for rows in chunks(count):
        latents = torch.randn(rows, config.networks.latent_size, generator=random)
        chunk_labels = None
        if generator.class_count:
            chunk_labels = torch.randint(generator.class_count, (rows,), generator=random)
            labels.append(chunk_labels.numpy())
        chunk = torch.sigmoid(checkpoint.meta.slope * generator(latents, chunk_labels))
        threshold = torch.rand(chunk.shape, generator=random) if bernoulli else 0.5
        probabilities.append(chunk.numpy())
        images.append((chunk > threshold).numpy())
    name = run.name if binarization is None else f"{run.name}, {binarization}"
    return Samples(
        name,
        np.concatenate(images).astype(np.uint8),
        np.concatenate(probabilities),
        np.concatenate(labels) if labels else None,
    )


def sample_model(model: OnnxModel, count: int, *, seed: int = 0) -> Samples:
    """`count` images, of all classes alike where it has any, drawn with numpy's generator of that seed."""
    random = np.random.default_rng(seed)
    images, probabilities, labels = [], [], []
    for rows in chunks(count):
        latents = random.standard_normal((rows, model.manifest.latent_size), np.float32)
        chunk_labels = None
        if model.class_count:
            chunk_labels = random.integers(model.class_count, size=rows)
            labels.append(chunk_labels)
        outputs = model.run(latents, lambda shape: random.random(shape, np.float32), chunk_labels)
        images.append(outputs[0])
        probabilities.append(outputs[1])
    return Samples(
        model.manifest.name,
        np.concatenate(images),
        np.concatenate(probabilities),
        np.concatenate(labels) if labels else None,
    )
