"""What the clients return."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

_SHORT = 8  # signs of a revision, as `bgan models` shows it
Labels = int | str | Sequence[int | str]
"""Classes by number or name: one, or several that take turns."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageBatch:
    """Consecutive images of one stream."""

    model: str
    """The name of the model that made them; "" where a file does not say it."""
    revision: str
    """The revision of that model; images of different revisions do not belong to one stream. "" as of `model`."""
    seed: int | None
    """The stream's seed; None where a file does not say it."""
    first_index: int
    """The index of the first image in the stream."""
    image_shape: tuple[int, int, int]
    """(channels, height, width) of each image."""
    packed_images: npt.NDArray[np.uint8]
    """uint8 [n, ceil(channels * height * width / 8)]: one bit a pixel, most significant bit first."""
    probabilities: npt.NDArray[np.float32] | None
    """float32 [n, channels, height, width] in [0, 1]; None unless they were asked for."""
    labels: npt.NDArray[np.int32] | None = None
    """The class of each image, int32 [n]; None unless the model is class-conditional."""
    classes: tuple[str, ...] = field(default=(), compare=False)
    """The names of the classes, by label, where the images come from a file that says them; else empty."""

    @classmethod
    def concatenate(cls, batches: Sequence[Self]) -> Self:
        """One batch of several that follow each other. Raises ValueError unless they do."""
        if not batches:
            raise ValueError("there are no batches to concatenate")
        for one, other in pairwise(batches):
            if not one.precedes(other):
                raise ValueError("the batches are not of one stream, or not in order")
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(batch, name) for batch in batches])
            for name in ("packed_images", "probabilities", "labels")
            if getattr(batches[0], name) is not None
        }
        return replace(batches[0], **arrays)

    def precedes(self, other: "ImageBatch") -> bool:
        """Whether `other` begins where this batch ends, in the same stream."""
        return self._stream == other._stream and self.next_index == other.first_index

    @property
    def _stream(self) -> tuple[object, ...]:
        """What all batches of a stream have in common."""
        has = self.labels is None, self.probabilities is None
        return (self.model, self.revision, self.seed, self.image_shape, *has)

    @cached_property
    def images(self) -> npt.NDArray[np.uint8]:
        """The images as uint8 [n, channels, height, width] of 0 and 1."""
        pixels = np.unpackbits(self.packed_images, axis=1, count=math.prod(self.image_shape))
        return pixels.reshape(-1, *self.image_shape)

    def __len__(self) -> int:
        return len(self.packed_images)

    __hash__ = None  # type: ignore[assignment]  # arrays have none

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ImageBatch):
            return NotImplemented
        compared = [each.name for each in fields(self) if each.compare]
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in compared)

    def __repr__(self) -> str:
        images = f"{len(self)} images of {_by(self.image_shape)}"
        stream = f"seed={self.seed}, first_index={self.first_index}"
        more = [name for name in ("labels", "probabilities") if getattr(self, name) is not None]
        parts = [images, f"model={self.model!r}", f"revision={_short(self.revision)}", stream, *more]
        return f"ImageBatch({', '.join(parts)})"

    @property
    def nbytes(self) -> int:
        """The bytes that the batch takes in memory, without `images`."""
        arrays = (self.packed_images, self.probabilities, self.labels)
        return sum(array.nbytes for array in arrays if array is not None)

    @property
    def next_index(self) -> int:
        """The index of the image that follows this batch."""
        return self.first_index + len(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """A model that a server has."""

    name: str
    """What to ask for."""
    version: int | None
    """The number of its version, if it has one; calls that name no version get a model's highest."""
    revision: str
    """The digest of everything that decides its streams."""
    is_default: bool
    """Whether calls that name no model get this one."""
    neuron: str
    """The output neurons: "deterministic", "stochastic" or "real"."""
    binarization: str
    """How it sets bits: "threshold" or "bernoulli"."""
    network: str
    """"mlp" or "cnn"."""
    image_shape: tuple[int, int, int]
    """(channels, height, width) of an image."""
    latent_size: int
    """Latent variables per image."""
    slope: float
    """The slope of its neurons."""
    dataset: str
    """What it was trained on."""
    run: str
    """The run it was exported from."""
    step: int
    """Generator iterations of that run."""
    epoch: int
    """Epochs of that run."""
    metrics: dict[str, float]
    """The metrics measured at export, by name."""
    classes: tuple[str, ...] = ()
    """The names of its classes, by label; empty unless it is class-conditional."""
    class_counts: tuple[int, ...] = ()
    """The shares in which its classes are drawn where no labels are named; empty: all alike."""
    arithmetic: str = "float"
    """What decides its bits: "integer", the same on every server, or "float", which depend on the class of CPU and
    the version of onnxruntime."""
    part_count: int = 0
    """The parts of its generator that gates turn on or off for each image; 0: it has no gates."""
    mean_active_share: float | None = None
    """The mean share of its parts that run for an image, as measured at export; None: it has no gates."""

    def __repr__(self) -> str:
        parts = [repr(self.name), f"version={self.version}", f"revision={_short(self.revision)}"]
        parts += [f"neuron={self.neuron!r}", f"network={self.network!r}", _by(self.image_shape)]
        parts += [f"{len(self.classes)} classes"] if self.classes else []
        parts += [f"{self.part_count} gates"] if self.part_count else []
        return f"ModelInfo({', '.join([*parts, *(['default'] if self.is_default else [])])})"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFailure:
    """A model file that a server cannot serve."""

    model: str
    """The model that it would be; a good version of that model is still served."""
    reason: str
    """Which file it is, and what is wrong with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The bounds that a server holds requests to."""

    max_image_count: int
    """The most images a request may ask for."""
    max_batch_size: int
    """The most images a batch may hold."""
    max_message_bytes: int
    """The most bytes a response may take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelList(Sequence[ModelInfo]):
    """The models that a server has: a sequence, by name, the highest version first."""

    models: tuple[ModelInfo, ...]
    """The same models, as a tuple."""
    failures: tuple[ModelFailure, ...]
    limits: Limits

    @overload
    def __getitem__(self, index: int) -> ModelInfo: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ModelInfo]: ...
    def __getitem__(self, index: int | slice) -> ModelInfo | Sequence[ModelInfo]:
        return self.models[index]

    def __len__(self) -> int:
        return len(self.models)

    def __repr__(self) -> str:
        lines = [*map(repr, self.models), *map(repr, self.failures), repr(self.limits)]
        return "\n    ".join(["ModelList(", *lines]) + ")"


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _short(revision: str) -> str:
    return repr(revision if len(revision) <= _SHORT else f"{revision[:_SHORT]}...")
