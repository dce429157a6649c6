"""Data sets of binary images: by name, in memory as one byte a pixel, or a file or folder, packed on disk.

"digits" is scikit-learn's bundled handwriting (1,797 images of 8x8, Alpaydin and Kaynak 1998), upscaled to
28x28, which needs no download; the other names are those of published_sets.py.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .array_source import ArraySource, WholeArray
from .binary_images import BinaryImages
from .data_choice import DataChoice
from .errors import DataError
from .image_options import ImageOptions
from .image_shape import ImageShape
from .packed_images import PackedImages, Progress, packed_dataset
from .published_sets import PUBLISHED_SETS, ensure_published, read_published
from .randomness import random_stream

DEFAULT_DATA_DIR = "data"
_DIGITS_TRAINING_COUNT = 1540  # six sevenths, as of MNIST; the set is ordered by writer
_DIGITS_LEVELS = 16
_PUBLISHED_SIZE = (28, 28)  # of all but Omniglot


@dataclass(frozen=True, slots=True)
class BinaryDataset:
    """Binary images of one split."""

    name: str
    """Which data set it is."""
    images: Tensor | PackedImages
    """uint8 [N, C, H, W] of 0 and 1; indexed by integers where they are packed."""
    labels: Tensor | None
    """int64 [N], classes from 0; None for a data set without labels."""
    classes: tuple[str, ...] | None = None
    """The names of the classes, where they have any."""
    digest: str | None = None
    """Of the whole set, all splits: SHA-256; None for a data set by name."""
    notes: tuple[str, ...] = ()
    """What the user should know about how it was read."""

    @property
    def image_shape(self) -> ImageShape:
        """The shape of one image."""
        return ImageShape(*self.images.shape[1:])

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class that a generator can be made of, its number if it has no other.

        Raises DataError where there are no labels, one class alone, or more than one for every two images.
        """
        if self.labels is None:
            raise DataError(
                f"{self.name} has no labels to condition on; name their array with --labels-key, lay images "
                "into a folder for each class, or train without --conditional"
            )
        names = self.classes or tuple(str(label) for label in range(int(self.labels.max()) + 1))
        if len(names) == 1:
            raise DataError(f"all images of {self.name} are of one class, {names[0]}; train without --conditional")
        if 2 * len(names) > len(self):
            raise DataError(
                f"{self.name} has {len(names)} classes for {len(self)} images, too few of each to learn from; "
                "name other labels with --labels-key, or train without --conditional"
            )
        return names

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def mean_image(self) -> Tensor:
        """The mean of all images, float32 [C, H, W]."""
        if isinstance(self.images, PackedImages):
            return self.images.mean()
        return self.images.sum(0, dtype=torch.float32) / len(self)

    def first(self, count: int) -> BinaryDataset:
        """The first images, in memory."""
        return self._chosen(torch.arange(min(count, len(self))))

    def in_memory(self, at_most: int | None = None) -> BinaryDataset:
        """The same images in memory; at most so many of packed ones, evenly spaced."""
        if not isinstance(self.images, PackedImages):
            return self
        count = len(self) if at_most is None else min(at_most, len(self))
        return self._chosen(torch.arange(count) * len(self) // max(1, count))

    def numpy(self) -> NDArray[np.uint8]:
        """All images as an array, uint8 [N, C, H, W]."""
        images = self.in_memory().images
        assert isinstance(images, Tensor)
        return images.numpy()

    def _chosen(self, rows: Tensor) -> BinaryDataset:
        labels = None if self.labels is None else self.labels[rows]
        return dataclasses.replace(self, images=self.images[rows], labels=labels)


class BatchStream:
    """An endless stream of batches; every pass over the images has an order of its own.

    Batch `index` is a function of (images, batch_size, seed, index) alone, so a run can go on at any
    index. What does not fill a batch at the end of a pass is left out of that pass.
    """

    def __init__(
        self,
        images: Tensor | PackedImages,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        labels: Tensor | None = None,
    ) -> None:
        if batch_size > len(images):
            raise DataError(f"batch-size is {batch_size}, but there are only {len(images)} images to train on")
        self._images = images.to(device) if isinstance(images, Tensor) else images
        self._labels = None if labels is None else labels.to(device)
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        self._pass = -1
        self._order = torch.empty(0, dtype=torch.int64)

    @property
    def batches_per_pass(self) -> int:
        """Whole batches in one pass over the images."""
        return len(self._images) // self._batch_size

    def batch(self, index: int) -> Tensor:
        """Batch `index` as float32 [B, C, H, W] of 0 and 1, on the device."""
        return self._images[self._rows(index)].to(self._device).float()

    def labels(self, index: int) -> Tensor | None:
        """The labels of batch `index`, int64 [B] on the device, where there are any."""
        return None if self._labels is None else self._labels[self._rows(index).to(self._device)]

    def _rows(self, index: int) -> Tensor:
        """Which images are in batch `index`."""
        current_pass, position = divmod(index, self.batches_per_pass)
        if current_pass != self._pass:
            generator = random_stream(self._seed, "order", current_pass)
            order = torch.randperm(len(self._images), generator=generator)
            self._order = order.to(self._images.device) if isinstance(self._images, Tensor) else order
            self._pass = current_pass
        return self._order[position * self._batch_size : (position + 1) * self._batch_size]


def data_root(data_dir: str | None) -> Path:
    """The folder of data sets: the given one, BGAN_DATA_DIR, or ./data."""
    return Path(data_dir or os.environ.get("BGAN_DATA_DIR") or DEFAULT_DATA_DIR)


def open_dataset(
    choice: DataChoice, *, split: str = "train", progress: Progress = lambda done, total: None
) -> BinaryDataset:
    """The split "train", "test" or "all" of what was chosen.

    A file or folder is converted on first use, which `progress` hears of. Raises DataError where it cannot be
    had, or has no image in that split, and ConfigError where an option does not fit it.
    """
    if choice.data is None:
        return load_dataset(choice.dataset, data_dir=choice.data_dir, split=split, options=choice.options)
    packed = packed_dataset(Path(choice.data), choice.options, progress=progress)
    if choice.digest not in {None, packed.digest}:
        raise DataError(
            f"the images of {choice.data} are not those that were trained on: their digest is "
            f"{packed.digest[:12]}, it was {choice.digest[:12]}; bring those back, or name others with --data"
        )
    images = packed.images(split)
    if not len(images):
        raise DataError(f"{choice.data} has {len(packed.rows)} images, of which none is held out for tests")
    labels = packed.labels
    if labels is not None:
        labels = labels[images.positions(torch.arange(len(images)))]
    return BinaryDataset(
        choice.dataset,
        images,
        None if labels is None else torch.from_numpy(labels),
        packed.classes,
        packed.digest,
        packed.notes,
    )


def known_image_shape(choice: DataChoice) -> ImageShape | None:
    """The shape of the images of a published set, which is known without reading it; None for other images."""
    if choice.data is not None or choice.dataset == "omniglot":
        return None
    return ImageShape(1, *(choice.options.height_and_width or _PUBLISHED_SIZE))


def load_dataset(
    name: str, *, data_dir: str | None = None, split: str = "train", options: ImageOptions | None = None
) -> BinaryDataset:
    """The split "train", "test" or "all" of a data set by name.

    Raises DataError where it cannot be had, or is no good as the options make it, and ConfigError where an
    option does not fit it.
    """
    if split == "all":
        parts = [load_dataset(name, data_dir=data_dir, split=part, options=options) for part in ("train", "test")]
        images = [part.images for part in parts if isinstance(part.images, Tensor)]
        labels = [part.labels for part in parts if part.labels is not None]
        return BinaryDataset(name, torch.cat(images), torch.cat(labels) if len(labels) == len(parts) else None)
    options = options or ImageOptions()
    options.check_for_pixels(name)
    pixels, targets, usual = _pixels_of(name, data_root(data_dir), split)
    if options.binarize is None:
        options = dataclasses.replace(options, binarize=usual[0], threshold=usual[1])
    source = ArraySource(WholeArray(pixels), ImageOptions(), name)
    bits = np.concatenate([bits for bits, _ in BinaryImages(source, options, name).chunks()])
    return BinaryDataset(name, torch.from_numpy(bits.view(np.uint8)), torch.from_numpy(targets))


def resolve_dataset(name: str, *, data_dir: str | None = None) -> tuple[str, str | None]:
    """What "auto" stands for here: "mnist" where it is or can be downloaded, else ("digits", why not)."""
    if name != "auto":
        return name, None
    try:
        ensure_published("mnist", data_root(data_dir))
    except DataError as error:
        return "digits", str(error)
    return "mnist", None


def choose_dataset(name: str, *, data_dir: str | None, say: Callable[[str], None]) -> str:
    """What `resolve_dataset` gives; `say` hears why it is the digits."""
    resolved, reason = resolve_dataset(name, data_dir=data_dir)
    if reason:
        say(f"using the bundled digits: {reason}")
    return resolved


def _pixels_of(
    name: str, root: Path, split: str
) -> tuple[NDArray[Any], NDArray[np.int64], tuple[str, float | None]]:
    """Pixels [N, 1, H, W] and labels [N] of one split, and the usual binarization with its threshold."""
    if name == "digits":
        return *_load_digits(split), ("threshold", 0.5)
    if name not in PUBLISHED_SETS:
        raise DataError(f"there is no data set {name!r}; there are digits, {', '.join(PUBLISHED_SETS)}")
    published = PUBLISHED_SETS[name]
    return *read_published(name, root, split), (published.binarize, published.threshold)


def _load_digits(split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    part = slice(None, _DIGITS_TRAINING_COUNT) if split == "train" else slice(_DIGITS_TRAINING_COUNT, None)
    levels = torch.from_numpy(bunch.images[part]).float().unsqueeze(1)  # [N, 1, 8, 8] of 0 .. 16
    pixels = F.interpolate(levels / _DIGITS_LEVELS, size=(28, 28), mode="bilinear")
    return pixels.numpy(), bunch.target[part]
