"""Which axis of an array is what: as --axes and --row-shape say, or read from its shape and its labels.

A letter names each axis: N (images), C (channels), H (rows) or W (columns). Axes of the same letter are joined
in their order: the bars and time steps of a pianoroll [N, bars, steps, pitches, tracks] are rows as "NHHWC".
"""

import math
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from ...common.errors import DataError
from ...config.images import ImageOptions
from .labels import fits

Shape = tuple[int, ...]
Letters = tuple[str, str | None]
"""Those of the axes, and others that are possible: "" for none by name, None where the first are plain."""

_USUAL_LETTERS = {3: "NHW", 4: "NCHW"}
_MOST_CHANNELS = 4  # that an axis is taken for without being told, as of RGBA


class ImageLayout:
    """How the axes of one array become those of images. Raises DataError if they cannot."""

    def __init__(
        self, shape: Shape, options: ImageOptions, path: object, *, labels: Sequence[Shape] = (), letters: str = ""
    ) -> None:
        """`labels` are the shapes of what may be its labels; `letters` are its axes, where those are known."""
        row, other = options.row_lengths, None
        letters = options.axes or letters
        if not letters:
            letters, other = _likely_letters(shape, row, labels)
        folded = _folded_axis(len(shape), letters)
        if row is None and len(shape) == 2 and len(letters) == 3 and (side := side_of(shape[folded])):
            row = (side, side)
        self._lengths = shape if row is None else _unfolded(shape, folded, row, path)
        if 0 in shape:
            raise DataError(f"{path} holds an array of shape {lengths_text(shape)}: there is nothing in it")
        if not letters or len(letters) != len(self._lengths):
            raise DataError(f"{path} holds an array of shape {lengths_text(shape)}; {_advice(shape)}")
        self._axes = [[axis for axis, own in enumerate(letters) if own == letter] for letter in "NCHW"]
        self._first = self._axes[0][0]
        more = 0 if row is None else len(row) - 1
        if row is not None and folded <= self._first <= folded + more:
            raise DataError(
                f"{path}: --row-shape unfolds an axis of pixels, which cannot be images too; see --axes"
            )
        self.first = self._first - more if row is not None and self._first > folded else self._first
        """The axis that the array is cut along: the first N."""
        self.count = self._joined(0)
        """Images in the whole array."""
        self.images_per_step = self.count // self._lengths[self._first]
        """Images for each step along `first`."""
        self.pixels_per_step = math.prod(self._lengths) // self._lengths[self._first]
        """Values for each step along `first`."""
        self.note = None if other is None else self._note(shape, letters, other)
        """What was taken, where the array may be meant otherwise, and how to say so."""

    def images(self, part: NDArray[Any]) -> NDArray[Any]:
        """A part of the array, cut along `first`, as [n, C, H, W]."""
        steps = part.shape[self.first]
        lengths = [steps if axis == self._first else length for axis, length in enumerate(self._lengths)]
        ordered = part.reshape(lengths).transpose([axis for axes in self._axes for axis in axes])
        return ordered.reshape(steps * self.images_per_step, *(self._joined(letter) for letter in (1, 2, 3)))

    def _joined(self, letter: int) -> int:
        return math.prod(self._lengths[axis] for axis in self._axes[letter])

    def _note(self, shape: Shape, letters: str, other: str) -> str:
        channels, height, width = (self._joined(letter) for letter in (1, 2, 3))
        taken = (
            f"the array of shape {lengths_text(shape)} is taken as --axes {letters}, {self.count:,} images of "
            f"{channels}x{height}x{width} (channels x rows x columns)"
        )
        return f"{taken}; if that is wrong, try --axes {other}" if other else taken


def lengths_text(shape: Shape) -> str:
    """A shape as messages write it."""
    return "x".join(map(str, shape)) or "one number"


def _likely_letters(shape: Shape, row: Shape | None, labels: Sequence[Shape]) -> Letters:
    """The letters of the axes, and what else is possible."""
    if len(shape) == 2:
        return _of_rows(shape, row, labels)
    if row is not None or len(shape) not in _USUAL_LETTERS:
        return _USUAL_LETTERS.get(len(shape) - 1 + len(row or (1,)), ""), None
    return (_of_planes if len(shape) == 3 else _of_four)(shape, labels)


def _of_rows(shape: Shape, row: Shape | None, labels: Sequence[Shape]) -> Letters:
    """[N, P], unless only P fits the labels, or only the first axis unfolds."""
    usual = _USUAL_LETTERS.get(1 + len(row or (1, 1)), "")
    turned = usual[1:] + "N"
    in_rows, in_columns = (bool(side_of(own)) if row is None else math.prod(row) == own for own in shape[::-1])
    by_labels = _place_of_images(shape, labels)
    if in_columns and (by_labels == -1 or not in_rows):
        return turned, usual if in_rows else ""
    return usual, turned if in_rows and in_columns and by_labels is None else None


def _of_planes(shape: Shape, labels: Sequence[Shape]) -> Letters:
    """[N, H, W], unless only the last axis fits the labels."""
    by_labels = _place_of_images(shape, labels)
    if by_labels == -1:
        return "HWN", "NHW"
    first, rows, columns = shape
    is_odd = by_labels is None and rows != columns and (first == rows or first < columns)
    return "NHW", "HWN" if is_odd else None


def _of_four(shape: Shape, labels: Sequence[Shape]) -> Letters:
    """[N, C, H, W], unless only the last axis fits the labels, or only the last one or two are short."""
    by_labels = _place_of_images(shape, labels)
    first, second, third, last = shape
    is_matlab = by_labels is None and third <= _MOST_CHANNELS < min(first, second) and last > first
    if by_labels == -1 or is_matlab:
        is_planar = first <= _MOST_CHANNELS < third
        return ("CHWN", "HWCN") if is_planar else ("HWCN", "NCHW")
    if last <= _MOST_CHANNELS < min(second, third):
        return "NHWC", "NCHW"
    return "NCHW", "NHWC" if second > last else None


def _place_of_images(shape: Shape, labels: Sequence[Shape]) -> int | None:
    """0 or -1: the first or the last axis, which the labels fit; None if neither does."""
    for place in (0, -1):
        if any(fits(own, shape[place]) for own in labels):
            return place
    return None


def _folded_axis(axes: int, letters: str) -> int:
    """The axis that rows and columns are unfolded from: the last, or the last before images that come last."""
    last = 0 if letters.startswith("N") else len(letters) - len(letters.rstrip("N"))
    return max(0, axes - 1 - last)


def side_of(length: int) -> int:
    """The side of a square of so many values; 0 if they make none."""
    side = math.isqrt(length)
    return side if side**2 == length else 0


def _unfolded(shape: Shape, axis: int, row: Shape, path: object) -> Shape:
    """The shape with one of its axes as several."""
    length = shape[axis] if shape else 1
    if math.prod(row) != length:
        raise DataError(f"{path} has rows of {length} values, which are not {lengths_text(row)}; see --row-shape")
    return (*shape[:axis], *row, *shape[axis + 1 :])


def _advice(shape: Shape) -> str:
    """What to do about an array whose axes are not plain."""
    if len(shape) < 2:
        return "images are [N, H, W] or [N, C, H, W]: is another array or file meant?"
    if len(shape) == 2:
        return (
            "images are [N, H, W] or [N, C, H, W]. If each row of it is one, give its height and width with "
            "--row-shape, as in 28x20, and for columns --axes HWN too"
        )
    example = "NHHWC" if len(shape) == 5 else "NHWC"
    return (
        f"images are [N, H, W] or [N, C, H, W]. Name all {len(shape)} axes with --axes, as in {example}; those of "
        "one letter are joined"
    )
