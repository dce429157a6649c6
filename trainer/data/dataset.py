"""A data set of binary images: in memory as one byte a pixel, or packed on disk."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..common.errors import DataError
from ..common.image_shape import ImageShape
from .packed import PackedImages


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
