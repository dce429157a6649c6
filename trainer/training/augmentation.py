"""Augmentation for small sets of images: shifts with zero fill, and flips.

Real and generated images pass through transforms of one family before a discriminator judges them, in its own step
and in the generator's (Zhao et al. 2020, Karras et al. 2020), so the generator is not taught to make shifted or
flipped ones. One image in five stays as it is: Karras et al. find that shares of 80 % and below do not leak.

A transform moves pixels and drops those that leave the image: bits stay bits, and it is linear, so the gradient of
straight-through estimators passes through it unchanged.

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
    """The transforms that an image may undergo."""

    rows: int
    """An image is shifted by at most so many rows."""
    columns: int
    hflip: bool
    vflip: bool
    size: tuple[int, int]
    """(rows, columns) of an image."""

    def draw(self, count: int, random: torch.Generator) -> ImageTransform:
        """A transform for each of `count` images."""
        rows = self._indices(count, self.size[0], self.rows, self.vflip, random)
        columns = self._indices(count, self.size[1], self.columns, self.hflip, random)
        stays = torch.rand(count, 1, generator=random, device=random.device) >= _AUGMENTED_SHARE
        row, column = (torch.arange(length, device=random.device) for length in self.size)
        return ImageTransform(torch.where(stays, row, rows), torch.where(stays, column, columns))

    @staticmethod
    def _indices(count: int, length: int, shift: int, may_flip: bool, random: torch.Generator) -> Tensor:
        """The index that each place of an axis takes its pixel from, [count, length]; maybe outside the image."""
        device = random.device
        shifts = torch.randint(-shift, shift + 1, (count, 1), generator=random, device=device)
        is_flipped = torch.rand(count, 1, generator=random, device=device) < 0.5 * may_flip
        places = torch.arange(length, device=device)
        return torch.where(is_flipped, length - 1 - places, places) + shifts


@dataclass(frozen=True, slots=True)
class ImageTransform:
    """A transform for each image of a batch: the row and the column that each pixel is taken from."""

    rows: Tensor
    """int64 [B, H]."""
    columns: Tensor
    """int64 [B, W]."""

    def __call__(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to images; pixels from outside are 0."""
        return _taken(_taken(images, self.rows[:, None, :, None], 2), self.columns[:, None, None, :], 3)


def build_augmentation(text: str, image_shape: ImageShape) -> Augmentation | None:
    """The augmentation that a text such as "translate:4,hflip" asks for; None without one.

    Unless the text gives pixels, shifts reach an eighth of each side, one pixel at least. Raises ConfigError if a
    shift could move all of an image away.
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
    if not choice.translate:
        return 0
    return min(max(1, round(side / _SHIFT_PART)), side - 1) if choice.pixels is None else choice.pixels


def _taken(images: Tensor, indices: Tensor, axis: int) -> Tensor:
    """Images whose places along an axis are taken from those indices, which are shaped to be expanded."""
    length = images.shape[axis]
    is_inside = (indices >= 0) & (indices < length)
    shape = [*images.shape[:axis], indices.shape[axis], *images.shape[axis + 1 :]]
    return images.gather(axis, indices.clamp(0, length - 1).expand(shape)) * is_inside
