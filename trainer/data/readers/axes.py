"""The axes of an array: any layout to [N, C, H, W].

A letter names each axis: N (images), C (channels), H (rows) or W (columns). Axes of the same letter are joined
in their order: the bars and time steps of a pianoroll [N, bars, steps, pitches, tracks] are rows as "NHHWC".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import DataError

_USUAL = {3: "NHW", 4: "NCHW"}


class ImageAxes:
    """How the axes of one array become those of images. Raises DataError if they cannot."""

    def __init__(
        self, shape: tuple[int, ...], *, axes: str | None, row_shape: tuple[int, ...] | None, path: object
    ) -> None:
        self.unfolded = (*shape[:-1], *_row(shape, row_shape, axes, path)) if shape else ()
        letters = axes or _USUAL.get(len(self.unfolded))
        if letters is None or len(letters) != len(self.unfolded) or 0 in self.unfolded:
            raise DataError(
                f"{path} holds an array of shape {lengths_text(shape)}; images are [N, H, W] or [N, C, H, W]. "
                "Name others with --axes, as in NHWC or NHHWC, and the shape of rows with --row-shape, as in 28x28"
            )
        self._order = [axis for letter in "NCHW" for axis, own in enumerate(letters) if own == letter]
        self._lengths = [[self.unfolded[axis] for axis, own in enumerate(letters) if own == x] for x in "NCHW"]
        self.count = math.prod(self._lengths[0])
        """Images in the whole array."""
        self.first = self._order[0]
        """The axis that the array is cut along, before rows are unfolded: the first N."""
        self.images_per_step = math.prod(self._lengths[0][1:])
        """Images for each step along `first`."""
        self.pixels_per_step = math.prod(self.unfolded) // self.unfolded[self.first]
        """Values for each step along `first`."""
        if row_shape is not None and self.first >= len(shape) - 1:
            raise DataError(f"{path}: --row-shape unfolds the last axis, which cannot be images too; see --axes")

    def images(self, part: NDArray[Any]) -> NDArray[Any]:
        """A part of the array, cut along `first`, as [n, C, H, W]."""
        steps = part.shape[self.first]
        lengths = [steps if axis == self.first else length for axis, length in enumerate(self.unfolded)]
        ordered = part.reshape(lengths).transpose(self._order)
        return ordered.reshape(steps * self.images_per_step, *(math.prod(own) for own in self._lengths[1:]))


def _row(
    shape: tuple[int, ...], row_shape: tuple[int, ...] | None, axes: str | None, path: object
) -> tuple[int, ...]:
    """What the last axis is unfolded to: the given shape, a square for [N, P], or itself."""
    length, side = shape[-1], math.isqrt(shape[-1])
    if row_shape is None:
        is_square = len(shape) == 2 and axes in {None, "NHW"} and side**2 == length
        return (side, side) if is_square else (length,)
    if math.prod(row_shape) != length:
        raise DataError(
            f"{path} has rows of {length} values, which are not {lengths_text(row_shape)}; see --row-shape"
        )
    return row_shape


def lengths_text(shape: tuple[int, ...]) -> str:
    """A shape, for messages."""
    return "x".join(map(str, shape)) or "one number"


def as_numbers(array: NDArray[Any], path: object) -> NDArray[Any]:
    """The array itself, if it holds numbers or truth values. Raises DataError."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path} holds values of type {array.dtype}; pixels are numbers")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def as_labels(labels: NDArray[Any], count: int, path: object) -> NDArray[np.int64]:
    """Labels as int64 [count]. Raises DataError if they are not so many integers."""
    if labels.dtype.kind not in "biu" or labels.size != count:
        raise DataError(
            f"{path}: the labels are {labels.dtype} of shape {lengths_text(labels.shape)}, "
            f"but {count} integers belong to the images; name others with --labels-key"
        )
    return labels.reshape(-1).astype(np.int64)
