"""Augmentation for small sets of images: shifts with zero fill, and flips.

Real and generated images pass through maps of one family before a discriminator judges them, in its own step and
in the generator's (Zhao et al. 2020, Karras et al. 2020): it never sees an image that was not drawn from the same
lottery, so the generator is not taught to make shifted or flipped ones. One image in five stays as it is, which
keeps the lottery one that can be undone: Karras et al. find that shares of 80 % and below do not leak.

A map moves pixels and drops those that leave the image: bits stay bits, and it is linear, so the gradient of
straight-through estimators passes it as it is.

Shapes: B batch, C channels, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.errors import ConfigError
from ..common.image_shape import ImageShape
from ..config.augment import AugmentChoice, parse_augment

_AUGMENTED_SHARE = 0.8
_SHIFT_PART = 8  # an eighth of a side, as Zhao et al. have it


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Which maps may happen to an image."""

    rows: int
    """The most rows that an image is shifted by."""
    columns: int
    """The most columns."""
    hflip: bool
    """Whether left and right may be exchanged."""
    vflip: bool
    """Whether top and bottom may be."""
    size: tuple[int, int]
    """(rows, columns) of an image."""

    def draw(self, count: int, random: torch.Generator) -> ImageTransform:
        """A map for each of `count` images."""
        rows = self._indices(count, self.size[0], self.rows, self.vflip, random)
        columns = self._indices(count, self.size[1], self.columns, self.hflip, random)
        stays = torch.rand(count, 1, generator=random, device=random.device) >= _AUGMENTED_SHARE
        return ImageTransform(*(torch.where(stays, _unmoved(each), each) for each in (rows, columns)))

    @staticmethod
    def _indices(count: int, length: int, shift: int, may_flip: bool, random: torch.Generator) -> Tensor:
        """The index that each place of an axis is taken from, [count, length]; it may lie outside of the image."""
        device = random.device
        shifts = torch.randint(-shift, shift + 1, (count, 1), generator=random, device=device)
        is_flipped = torch.rand(count, 1, generator=random, device=device) < 0.5 * may_flip
        places = torch.arange(length, device=device)
        return torch.where(is_flipped, length - 1 - places, places) + shifts


@dataclass(frozen=True, slots=True)
class ImageTransform:
    """A map for each image of a batch: the row and the column that each of its pixels is taken from."""

    rows: Tensor
    """int64 [B, H]."""
    columns: Tensor
    """int64 [B, W]."""

    def __call__(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to images; what comes from outside is 0."""
        return _taken(_taken(images, self.rows[:, None, :, None], 2), self.columns[:, None, None, :], 3)


def build_augmentation(text: str, image_shape: ImageShape) -> Augmentation | None:
    """What `parse_augment` makes of the text, for images of that shape; None where nothing happens to them.

    Without pixels a shift is of up to an eighth of each side, and of one pixel at least. Raises ConfigError where
    a shift could move all of an image away.
    """
    choice = parse_augment(text)
    if choice is None:
        return None
    size = (image_shape.height, image_shape.width)
    if choice.pixels is not None and choice.pixels >= min(size):
        raise ConfigError(
            f"augment is {text!r}, which can move all of an image of {size[0]}x{size[1]} away; give fewer pixels"
        )
    rows, columns = (_shift(choice, side) for side in size)
    return Augmentation(rows, columns, hflip=choice.hflip, vflip=choice.vflip, size=size)


def _shift(choice: AugmentChoice, side: int) -> int:
    """By how much an axis of that length may be shifted."""
    if not choice.translate:
        return 0
    return min(max(1, round(side / _SHIFT_PART)), side - 1) if choice.pixels is None else choice.pixels


def _unmoved(indices: Tensor) -> Tensor:
    return torch.arange(indices.shape[1], device=indices.device).expand_as(indices)


def _taken(images: Tensor, indices: Tensor, axis: int) -> Tensor:
    """Images whose places along an axis are taken from those indices, which are shaped to be expanded."""
    length = images.shape[axis]
    is_inside = (indices >= 0) & (indices < length)
    shape = [*images.shape[:axis], indices.shape[axis], *images.shape[axis + 1 :]]
    return images.gather(axis, indices.clamp(0, length - 1).expand(shape)) * is_inside
