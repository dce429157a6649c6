"""A trained generator, opened: the newest checkpoint of a run, or a model file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bgan.v1 import model_pb2

from ..common.errors import ConfigError, SamplesError
from ..common.image_shape import ImageShape
from ..common.rng import CPU, random_stream
from ..common.text import shown
from ..config.images import DatasetSpec
from ..exporting.model_file import NEURONS, OnnxModel
from ..networks.build import AnyGenerator
from ..networks.gates import GatedGenerator
from ..networks.inner import generator_logits, inner_uniform_count
from ..training.checkpoint import trained_generator
from ..training.gate_shares import gate_shares
from ..training.run import Run, find_run, trained_checkpoint
from .samples import Samples

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
Gates = NDArray[np.uint8]
Uniforms = Callable[[tuple[int, ...]], Floats]
_OUTPUT = "exploration"
_ROWS = 500  # of a batch of samples
_NEURONS = {value: name for name, value in NEURONS.items()}


class Probabilities(Protocol):
    """What computes preactivated outputs, see `TrainedGenerator.probabilities`."""

    def __call__(self, latents: Floats, labels: Labels | None, inner: Floats | None = None, /) -> Floats:
        """Latents [N, Z], labels [N] and inner uniforms [N, n] to [N, C, H, W]."""


class Noise(NamedTuple):
    """What samples are drawn from. Each call draws the next numbers of one stream."""

    latents: Callable[[int, int], Floats]
    """(N, Z) to standard normal ones, float32 [N, Z]."""
    labels: Callable[[int, int], Labels]
    """(M, N) to whole numbers below M, int64 [N], all of them alike."""
    uniforms: Uniforms
    """A shape to float32 in [0, 1)."""


def torch_noise(seed: int) -> Noise:
    """The noise that samples of runs are drawn from."""
    random = random_stream(seed, "evaluation")
    return Noise(
        latents=lambda count, size: torch.randn(count, size, generator=random).numpy(),
        labels=lambda classes, count: torch.randint(classes, (count,), generator=random).numpy(),
        uniforms=lambda shape: torch.rand(shape, generator=random).numpy(),
    )


def numpy_noise(seed: int) -> Noise:
    """The noise that samples of model files are drawn from."""
    random = np.random.default_rng(seed)
    return Noise(
        latents=lambda count, size: random.standard_normal((count, size), np.float32),
        labels=lambda classes, count: random.integers(classes, size=count),
        uniforms=lambda shape: random.random(shape, np.float32),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedGates:
    """The gates of a generator with a conditional computation graph of E parts; see `TrainedGenerator`."""

    rate: float
    """The share of images that each part was to run for."""
    neuron: str
    """Their neurons: "dbn" or "sbn"."""
    shares: NDArray[np.float64]
    """The share of images for which each part runs, by class: [K, E]; without classes [1, E]."""
    of: Callable[[Floats, Labels | None, Floats | None], Gates]
    """Latents [N, Z], labels [N] and inner uniforms [N, n] to gates, uint8 [N, E], 1 where a part runs."""
    forced: Callable[[Floats, Labels | None, Gates], Floats] | None
    """Latents, labels and gates of one's own to preactivated outputs; None of a model file, which takes none."""

    @property
    def count(self) -> int:
        """E."""
        return int(self.shares.shape[1])

    @property
    def text(self) -> str:
        """The gates in words."""
        return f"gates {self.count} at {self.rate:g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedGenerator:
    """A trained generator, and what is known of it."""

    name: str
    network: str
    neuron: str
    """Its output neurons: "dbn", "sbn" or "real"."""
    training_neuron: str
    is_stochastic: bool
    """Whether its images are drawn (on with probability p), else they are thresholded (on where p > 0.5)."""
    latent_size: int
    image_shape: ImageShape
    slope: float
    step: int
    """Generator iterations that it was trained for."""
    dataset_spec: DatasetSpec
    """The images that it was trained on; a model file knows their name alone."""
    training_split: str = "train"
    """The part that it was trained on: "train" or "all"."""
    classes: tuple[str, ...] = ()
    """The names of its classes if it is class-conditional."""
    class_counts: tuple[int, ...] = ()
    """The shares in which its classes are drawn; none: alike."""
    output: Path
    """The folder that its exploration goes to if no other is named."""
    probabilities: Probabilities
    """Latents, float32 [N, Z], to preactivated outputs, float32 [N, C, H, W] in [0, 1].

    A class-conditional generator takes labels too, int64 [N], and stochastic inner neurons uniforms [N, n].
    """
    inner_uniform_count: int = 0
    """n, the uniforms that an image's inner neurons take."""
    gates: TrainedGates | None = None
    """None: all of it runs for every image."""
    graph: Callable[[Floats, Labels | None, Uniforms, Floats | None], tuple[Images, Floats]] | None = None
    """A model file's own images and probabilities; None: an image is on where its probability says so."""
    noise: Callable[[int], Noise] = torch_noise

    @classmethod
    def from_run(
        cls, run: Run, warn: Callable[[str], None] = lambda text: None, device: torch.device = CPU
    ) -> TrainedGenerator:
        """The newest whole checkpoint of a run, computed on the device; `warn` is called with damaged ones.

        Raises RunError where there is no checkpoint, CheckpointError where all are damaged.
        """
        config = run.config()
        checkpoint = trained_checkpoint(run, warn)
        meta = checkpoint.meta
        network = trained_generator(config, checkpoint, given=run.given).to(device)

        @torch.no_grad()
        def probabilities(latents: Floats, labels: Labels | None, inner: Floats | None = None) -> Floats:
            rows, classes, uniforms = (_on(device, each) for each in (latents, labels, inner))
            assert rows is not None
            logits = generator_logits(network, rows, classes, slope=meta.slope, inner_uniforms=uniforms)
            outputs: Floats = torch.sigmoid(meta.slope * logits).cpu().numpy()
            return outputs

        return cls(
            name=run.name,
            network=config.networks.network,
            neuron=config.neurons.neuron,
            training_neuron=config.neurons.training_neuron,
            is_stochastic=config.neurons.neuron == "sbn",
            latent_size=config.networks.latent_size,
            image_shape=meta.image_shape,
            slope=meta.slope,
            step=meta.step,
            dataset_spec=config.data,
            training_split=config.optimization.training_split,
            classes=meta.classes,
            class_counts=meta.class_counts,
            output=run.folder / _OUTPUT,
            probabilities=probabilities,
            inner_uniform_count=inner_uniform_count(network),
            gates=_gates_of_run(network, config.inner.gate_rate or 0, meta.slope, device),
        )

    @classmethod
    def from_model(cls, path: Path) -> TrainedGenerator:
        """An exported model file. Raises SamplesError where it is none, or does not run as its manifest says."""
        model = OnnxModel(path)
        manifest = model.manifest
        shape = ImageShape(*(getattr(manifest.image_shape, axis) for axis in ImageShape._fields))
        if manifest.neuron not in _NEURONS:
            raise SamplesError(f"{path} does not say which neurons it has; export it again")

        def graph(
            latents: Floats, labels: Labels | None, uniforms: Uniforms, inner: Floats | None = None
        ) -> tuple[Images, Floats]:
            try:
                images, outputs = model.run(latents, uniforms, labels, inner)
                return images.reshape(-1, *shape), outputs.reshape(len(latents), *shape)
            except Exception as error:  # onnxruntime raises classes of its own that it does not export
                what = f"{path} does not run as its manifest says ({str(error).strip().splitlines()[0]})"
                raise SamplesError(f"{what}; export it again") from error

        def probabilities(latents: Floats, labels: Labels | None, inner: Floats | None = None) -> Floats:
            return graph(latents, labels, lambda shape: np.zeros(shape, np.float32), inner)[1]

        return cls(
            name=manifest.name,
            network=manifest.network,
            neuron=_NEURONS[manifest.neuron],
            training_neuron=_NEURONS[manifest.training_run.neuron or manifest.neuron],
            is_stochastic=manifest.binarization == model_pb2.BINARIZATION_BERNOULLI,
            latent_size=manifest.latent_size,
            image_shape=shape,
            slope=manifest.slope,
            step=manifest.training_run.step,
            dataset_spec=DatasetSpec(dataset=manifest.dataset),
            classes=tuple(manifest.classes),
            class_counts=tuple(manifest.class_counts),
            output=Path(_OUTPUT) / path.stem,
            probabilities=probabilities,
            inner_uniform_count=manifest.inner_uniform_count,
            gates=_gates_of_model(model),
            graph=graph,
            noise=numpy_noise,
        )

    def sample(
        self,
        count: int,
        *,
        seed: int = 0,
        binarization: str | None = None,
        labels: Sequence[int | str] | None = None,
    ) -> Samples:
        """`count` images, of its classes in the shares of its training images if it is class-conditional.

        `binarization` is "threshold" or "bernoulli"; None is that of its neurons, threshold for real-valued ones.
        `labels` are classes by number or name, which take turns. Raises ConfigError for another one, and for
        classes that it has not.
        """
        wanted = None if labels is None else self._numbers(labels)
        if binarization not in {None, "threshold", "bernoulli"}:
            raise ConfigError(f"binarization is {binarization!r}; choose one of threshold, bernoulli")
        for name, number, least in (("count", count, 1), ("seed", seed, 0)):
            if not isinstance(number, int | np.integer) or number < least:
                raise ConfigError(f"{name} is {shown(number)}; it must be a whole number, at least {least}")
        noise = self.noise(seed)
        batches = []
        for start in range(0, count, _ROWS):
            rows = min(_ROWS, count - start)
            latents = noise.latents(rows, self.latent_size)
            drawn = self._labels(noise, rows) if self.classes else None
            numbers = drawn if wanted is None else np.resize(np.roll(wanted, -start), rows)
            inner = noise.uniforms((rows, self.inner_uniform_count)) if self.inner_uniform_count else None
            if self.graph and binarization is None:
                images, probabilities = self.graph(latents, numbers, noise.uniforms, inner)
            else:
                probabilities = self.probabilities(latents, numbers, inner)
                is_drawn = binarization == "bernoulli" or (binarization is None and self.is_stochastic)
                threshold = noise.uniforms(probabilities.shape) if is_drawn else np.float32(0.5)
                images = (probabilities > threshold).astype(np.uint8)
            batches.append((images, probabilities, numbers))
        all_images, all_probabilities, all_labels = zip(*batches, strict=True)
        return Samples(
            self.name if binarization is None else f"{self.name}, {binarization}",
            np.concatenate(all_images),
            np.concatenate(all_probabilities),
            np.concatenate(all_labels) if self.classes else None,
            self.classes or None,
        )

    def _numbers(self, labels: Sequence[int | str]) -> Labels:
        """Classes by number or name as numbers. Raises ConfigError for those that it has not."""
        labels = [labels] if isinstance(labels, str) else labels
        if not self.classes:
            raise ConfigError(f"{self.name} is not class-conditional; leave out labels")
        known: dict[int | str, int] = {name: number for number, name in enumerate(self.classes)}
        known |= {number: number for number in range(len(self.classes))}
        if not len(labels) or (unknown := [label for label in labels if label not in known]):
            which = unknown[0] if len(labels) else "none"
            raise ConfigError(
                f"{self.name} has no class {which!r}; its classes are {', '.join(self.classes[:20])}"
            )
        return np.array([known[label] for label in labels], np.int64)

    def _labels(self, noise: Noise, count: int) -> Labels:
        if not self.class_counts:
            return noise.labels(len(self.classes), count)
        ends = np.cumsum(self.class_counts)
        return np.searchsorted(ends, noise.labels(int(ends[-1]), count), side="right")


def _gates_of_run(network: AnyGenerator, rate: float, slope: float, device: torch.device) -> TrainedGates | None:
    """The gates of a network, computed on the device; None where it has none."""
    if not isinstance(network, GatedGenerator):
        return None

    @torch.no_grad()
    def of(latents: Floats, labels: Labels | None, inner: Floats | None) -> Gates:
        rows, classes, uniforms = (_on(device, each) for each in (latents, labels, inner))
        assert rows is not None
        logits = network.gate_logits(network.trunk.inputs(rows, classes))
        bits: Gates = network.bits(logits, slope, uniforms).to(torch.uint8).cpu().numpy()
        return bits

    @torch.no_grad()
    def forced(latents: Floats, labels: Labels | None, gates: Gates) -> Floats:
        rows, classes, bits = (_on(device, each) for each in (latents, labels, gates.astype(np.float32)))
        assert rows is not None
        assert bits is not None
        outputs: Floats = torch.sigmoid(slope * network.inner_pass(rows, classes).outputs(bits)).cpu().numpy()
        return outputs

    shares = gate_shares(network, slope).by_class
    return TrainedGates(rate=rate, neuron=network.neuron, shares=shares, of=of, forced=forced)


def _gates_of_model(model: OnnxModel) -> TrainedGates | None:
    """The gates of a model file; None where it has none."""
    own = model.manifest.gates
    if not own.count:
        return None
    shares = np.array(own.class_active_shares or own.active_shares, np.float64).reshape(-1, own.count)
    return TrainedGates(rate=own.rate, neuron=_NEURONS[own.neuron], shares=shares, of=model.gates, forced=None)


def _on(device: torch.device, values: NDArray[Any] | None) -> torch.Tensor | None:
    return None if values is None else torch.from_numpy(values).to(device)


def open_generator(
    source: str | None, runs_dir: Path, warn: Callable[[str], None], device: torch.device = CPU
) -> TrainedGenerator:
    """A model file (.onnx), or the run of that name or folder, None being the newest one.

    `warn` is called with damaged checkpoints; a run is computed on the device. Raises RunError or SamplesError
    where there is neither.
    """
    path = Path(source or "")
    if path.suffix == ".onnx":
        if not path.is_file():
            raise SamplesError(f"there is no file {source}; `bgan export` writes models")
        return TrainedGenerator.from_model(path)
    if path.is_file():
        raise SamplesError(f"{source} is neither the folder of a run nor a model (.onnx)")
    return TrainedGenerator.from_run(find_run(source, runs_dir), warn, device)
