"""A data set of binary images, in memory as one byte a pixel or packed on disk, and its batches."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..common.errors import ConfigError, DataError
from ..common.image_shape import ImageShape
from ..common.rng import random_stream
from ..common.text import first_line
from ..config.images import DATASETS, DatasetSpec, ImageOptions
from .binarize import AnyBits
from .binary_images import BinaryImages, settled_labels
from .packed import PackedImages
from .readers.arrays import ArraySource, sliced_array

_CHUNK_ROWS = 4096
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_MAX_CLASS_BYTES = 60_000  # of their names and counts as JSON: a server takes manifests of 65,536
_COUNT_BYTES = len('    "4294967295",\n')


@dataclass(frozen=True, slots=True)
class BinaryDataset:
    """Binary images of one split."""

    name: str
    images: Tensor | PackedImages
    """uint8 [N, C, H, W] of 0 and 1; packed ones, or by dynamic binarization, are indexed by integers."""
    labels: Tensor | None
    """int64 [N], classes from 0; None for a data set without labels."""
    classes: tuple[str, ...] | None = None
    """The names of the classes, where they have any."""
    digest: str | None = None
    """SHA-256 of the whole set, all splits; None for a data set by name."""
    notes: tuple[str, ...] = ()
    """What the user should know about how it was read."""
    groups: Tensor | None = None
    """int64 [N]: images with the same number belong together; None where nothing says so."""
    spec: DatasetSpec | None = None
    """What settings call the set that this is a split of; None: it is some of one, or was made from arrays."""
    split: str = "train"

    @classmethod
    def from_arrays(
        cls,
        images: NDArray[Any] | Tensor,
        labels: NDArray[Any] | Tensor | Sequence[int | str] | None = None,
        *,
        name: str = "arrays",
        **options: Any,
    ) -> BinaryDataset:
        """The images of an array [N, H, W] or [N, C, H, W], with a label each, numbers or words.

        Values become 0 and 1 as by `bgan train`: what is not 0 is 1, unless `options`, those of reading images,
        say otherwise (binarize, threshold, size, fit, ...). `name` is that of the set in runs and models. Raises
        DataError where nothing can be learned from them, and ConfigError for a name or an option that is invalid.
        """
        known = [field.name for field in dataclasses.fields(ImageOptions)]
        if unknown := [option for option in options if option not in known]:
            raise ConfigError(f"there is no option {unknown[0]!r} of images; there are {', '.join(known)}")
        settings = ImageOptions(**{"labels_key": None if labels is None else "labels", **options})
        if name in DATASETS or not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(
                f"the data set's name is {name!r}; give one of A-Z, a-z, 0-9, '_', '-' and '.' that no other has"
            )
        source = ArraySource(
            sliced_array(_as_array(images, f"{name}: images")),
            dataclasses.replace(settings, key=None),
            name,
            labels={} if labels is None else {"labels": sliced_array(_as_array(labels, f"{name}: labels"))},
        )
        read = BinaryImages(source, settings, name)
        bits, parts = zip(*read.chunks(), strict=True)
        numbers, classes = settled_labels([part for part in parts if part is not None], source.classes)
        return cls(
            name,
            images_of(np.concatenate(bits), settings.bernoulli_seed),
            None if numbers is None else torch.from_numpy(numbers),
            classes,
            notes=tuple(read.notes),
        )

    @property
    def image_shape(self) -> ImageShape:
        """The shape of one image."""
        return ImageShape(*self.images.shape[1:])

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class to condition on, its number if it has no other.

        Raises DataError without labels, for one class alone, for more than one for every two images, or for names
        that fit into no model file.
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
        size = sum(len(f"    {json.dumps(name)},\n") + _COUNT_BYTES for name in names)
        if size > _MAX_CLASS_BYTES:
            raise DataError(
                f"the names of the {len(names)} classes of {self.name} take {size:,} bytes, and a model file has "
                f"room for {_MAX_CLASS_BYTES:,}; shorten them, or train without --conditional"
            )
        return names

    @property
    def class_counts(self) -> tuple[int, ...]:
        """How many images each class of `class_names` has. Raises as that does."""
        names = self.class_names
        assert self.labels is not None  # where there are names
        return tuple(torch.bincount(self.labels, minlength=len(names)).tolist())

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        """All images in order, some at a time: uint8 [n, C, H, W]."""
        for rows in torch.split(torch.arange(len(self)), _CHUNK_ROWS):
            yield self.images[rows].numpy()

    def mean_image(self) -> Tensor:
        """The mean of all images, float32 [C, H, W]."""
        on = np.zeros(self.image_shape, np.int64)
        for images in self.chunks():
            on += images.sum(axis=0, dtype=np.int64)
        return torch.from_numpy((on / len(self)).astype(np.float32))

    def content_digest(self) -> str:
        """SHA-256 of the images and labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.numpy()).data)
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels.numpy()).data)
        return digest.hexdigest()

    def first(self, count: int) -> BinaryDataset:
        """The first images, in memory."""
        return self._chosen(torch.arange(min(count, len(self))))

    def in_memory(self, at_most: int | None = None) -> BinaryDataset:
        """The same images in memory; at most so many of a file or folder, evenly spaced."""
        if isinstance(self.images, Tensor):
            return self
        count = len(self) if at_most is None or self.digest is None else min(at_most, len(self))
        return self._chosen(torch.arange(count) * len(self) // max(1, count))

    def numpy(self) -> NDArray[np.uint8]:
        """All images as an array, uint8 [N, C, H, W]."""
        images = self.images if isinstance(self.images, Tensor) else self.images[torch.arange(len(self))]
        return images.numpy()

    def part(self, rows: Tensor) -> BinaryDataset:
        """The images of these indices, int64 [n]; packed ones stay so."""
        images = self.images[rows] if isinstance(self.images, Tensor) else self.images.part(rows)
        labels = None if self.labels is None else self.labels[rows]
        groups = None if self.groups is None else self.groups[rows]
        return dataclasses.replace(self, images=images, labels=labels, groups=groups, spec=None)

    def _chosen(self, rows: Tensor) -> BinaryDataset:
        return dataclasses.replace(self.part(rows), images=self.images[rows])


def _as_array(values: Any, what: str) -> NDArray[Any]:
    """An array of numpy. Raises DataError where none can be made, as of rows of several lengths."""
    try:
        return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    except (ValueError, TypeError) as error:
        raise DataError(f"{what} are no array of numbers ({first_line(error)})") from error


def images_of(bits: AnyBits, dynamic_seed: int) -> Tensor | PackedImages:
    """Images in memory: of bits [N, C, H, W], or of levels by dynamic binarization, with the seed of its draws."""
    if bits.dtype == np.bool_:
        return torch.from_numpy(bits.view(np.uint8))
    levels = bits.reshape(len(bits), -1).view(np.uint8)
    return PackedImages(levels, bits.shape[1:], np.arange(len(bits)), dynamic_seed)


class BatchStream:
    """An endless stream of batches; every epoch has an order of its own.

    Batch `index` is a function of (images, batch_size, seed, index) alone, so a run can resume at any index.
    Each epoch drops its last incomplete batch. Raises DataError if the images do not fill one batch.
    """

    def __init__(
        self,
        images: Tensor | PackedImages,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        labels: Tensor | None = None,
        shards: int = 1,
    ) -> None:
        if batch_size > len(images):
            raise DataError(f"batch-size is {batch_size}, but there are only {len(images)} images to train on")
        self._images = images.to(device) if isinstance(images, Tensor) else images
        self._labels = None if labels is None else labels.to(device)
        self._batch_size, self._shard_size = batch_size, batch_size // shards
        self._seed = seed
        self._device = device
        self.batches_per_epoch = len(images) // batch_size
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def batch(self, index: int, shard: int = 0) -> Tensor:
        """A shard of batch `index` as float32 [B / shards, C, H, W] of 0 and 1; no other is read."""
        rows = self._rows(index, shard)
        if isinstance(self._images, Tensor):
            return self._images[rows].float()
        epoch = index // self.batches_per_epoch
        return self._images.in_epoch(rows, seed=self._seed, epoch=epoch).to(self._device).float()

    def labels(self, index: int, shard: int = 0) -> Tensor | None:
        """The labels of that shard, int64 [B / shards] on the device; None without labels."""
        return None if self._labels is None else self._labels[self._rows(index, shard).to(self._device)]

    def _rows(self, index: int, shard: int = 0) -> Tensor:
        epoch, position = divmod(index, self.batches_per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(len(self._images), generator=random_stream(self._seed, "order", epoch))
            self._order = order.to(self._images.device) if isinstance(self._images, Tensor) else order
            self._epoch = epoch
        start = position * self._batch_size + shard * self._shard_size
        return self._order[start : start + self._shard_size]
