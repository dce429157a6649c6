"""Images that lie in one array of any layout, read some at a time as [N, C, H, W].

A letter names each axis: N (images), C (channels), H (rows) or W (columns). Axes of the same letter are joined
in their order: the bars and time steps of a pianoroll [N, bars, steps, pitches, tracks] are rows as "NHHWC".
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import ConfigError, DataError
from ...config.images import ImageOptions
from .source import BadImages, ImageSource, RawImages, check_ratio, not_readable, reading

_CHUNK_BYTES = 2**22
_USUAL_AXES = {3: "NHW", 4: "NCHW"}
LABEL_KEYS = ("labels", "label", "y")


@dataclass(frozen=True, slots=True)
class ReadableArray:
    """An array that need not be in memory."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    part: Callable[[int, int, int], NDArray[Any]]
    """(axis, start, stop) to the array from `start` to `stop` along that axis. Parts are asked for in order."""

    def whole(self) -> NDArray[Any]:
        """All of it, with one axis at least."""
        return self.part(0, 0, self.shape[0] if self.shape else 1)


def sliced_array(array: Any) -> ReadableArray:
    """An array in memory or mapped into it, or what can be sliced like one."""
    return ReadableArray(
        array.shape, array.dtype, lambda axis, *ends: array[(slice(None),) * axis + (slice(*ends),)]
    )


def streamed_array(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], path: object) -> ReadableArray:
    """A row-major array whose bytes a file has from its position on; all of it is read to cut another axis."""

    def rows(count: int) -> NDArray[Any]:
        wanted = count * math.prod(shape[1:]) * dtype.itemsize
        with reading(path, Exception):  # zipfile, zlib and the file system raise whatever they stumble on
            content = file.read(wanted)
        if len(content) != wanted:
            raise not_readable(path, "it ends before its last image")
        return np.frombuffer(content, dtype).reshape(count, *shape[1:])

    in_memory = cache(lambda: sliced_array(rows(shape[0])))

    def part(axis: int, start: int, stop: int) -> NDArray[Any]:
        return rows(stop - start) if axis == 0 else in_memory().part(axis, start, stop)

    return ReadableArray(shape, dtype, part)


def turned_array(array: ReadableArray) -> ReadableArray:
    """An array whose axes lie in reverse order in its file, as Fortran and MATLAB write them."""
    last = len(array.shape) - 1
    return ReadableArray(array.shape[::-1], array.dtype, lambda axis, *ends: array.part(last - axis, *ends).T)


def sparse_array(shape: tuple[int, ...], indices: NDArray[Any]) -> ReadableArray:
    """Bits from the indices of those that are on, as numpy's `nonzero` gives them: integers [axes, values]."""

    @cache
    def in_order_of(axis: int) -> NDArray[Any]:
        is_sorted = (indices[axis, :-1] <= indices[axis, 1:]).all()
        return indices if is_sorted else indices[:, np.argsort(indices[axis], kind="stable")]

    def part(axis: int, start: int, stop: int) -> NDArray[Any]:
        ordered = in_order_of(axis)
        first, last = np.searchsorted(ordered[axis], (start, stop))
        chosen = ordered[:, first:last].copy()
        chosen[axis] -= start
        dense = np.zeros((*shape[:axis], stop - start, *shape[axis + 1 :]), np.bool_)
        dense[tuple(chosen)] = True
        return dense

    return ReadableArray(shape, np.dtype(np.bool_), part)


def packed_array(rows: ReadableArray, image_shape: tuple[int, ...]) -> ReadableArray:
    """Images as `bgan sample` packs them: uint8 [N, bytes], one bit a pixel; their axis is the only one to cut."""

    def part(axis: int, start: int, stop: int) -> NDArray[Any]:
        bits = np.unpackbits(rows.part(axis, start, stop), axis=1, count=math.prod(image_shape))
        return bits.reshape(-1, *image_shape)

    return ReadableArray((rows.shape[0], *image_shape), np.dtype(np.uint8), part)


class _ImageAxes:
    """How the axes of one array become those of images. Raises DataError if they cannot."""

    def __init__(
        self, shape: tuple[int, ...], *, axes: str | None, row_shape: tuple[int, ...] | None, path: object
    ) -> None:
        self.unfolded = (*shape[:-1], *_row(shape, row_shape, axes, path)) if shape else ()
        letters = axes or _USUAL_AXES.get(len(self.unfolded))
        if letters is None or len(letters) != len(self.unfolded) or 0 in self.unfolded:
            raise DataError(
                f"{path} holds an array of shape {_lengths_text(shape)}; images are [N, H, W] or [N, C, H, W]. "
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
            f"{path} has rows of {length} values, which are not {_lengths_text(row_shape)}; see --row-shape"
        )
    return row_shape


def _lengths_text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _as_numbers(array: NDArray[Any], path: object) -> NDArray[Any]:
    """The array itself, if it holds numbers or truth values. Raises DataError."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path} holds values of type {array.dtype}; pixels are numbers")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _as_labels(labels: NDArray[Any], count: int, path: object) -> NDArray[np.int64]:
    """Labels as int64 [count]. Raises DataError if they are not so many integers."""
    if labels.dtype.kind not in "biu" or labels.size != count:
        raise DataError(
            f"{path}: the labels are {labels.dtype} of shape {_lengths_text(labels.shape)}, "
            f"but {count} integers belong to the images; name others with --labels-key"
        )
    return labels.reshape(-1).astype(np.int64)


class ArraySource(ImageSource):
    """The images of one array."""

    def __init__(
        self, array: ReadableArray, options: ImageOptions, path: object, *, labels: NDArray[Any] | None = None
    ) -> None:
        _as_numbers(np.empty(0, array.dtype), path)
        self._array = array
        self._axes = _ImageAxes(array.shape, axes=options.axes, row_shape=options.row_lengths, path=path)
        self.count = self._axes.count
        self._labels = None if labels is None else _as_labels(labels, self.count, path)
        self._path = path

    def chunks(self, bad: BadImages) -> Iterator[RawImages]:
        """All images, some at a time; none is bad by itself."""
        axes = self._axes
        steps = self._array.shape[axes.first]
        at_once = max(1, _CHUNK_BYTES // (axes.pixels_per_step * self._array.dtype.itemsize))
        for start in range(0, steps, at_once):
            part = self._array.part(axes.first, start, min(start + at_once, steps))
            images = axes.images(_as_numbers(part, self._path))
            first = start * axes.images_per_step
            labels = None if self._labels is None else self._labels[first : first + len(images)]
            yield RawImages(images, labels, first)


def chosen_source(
    arrays: Mapping[str, ReadableArray],
    options: ImageOptions,
    path: Path,
    *,
    as_integers: Callable[[NDArray[Any]], NDArray[Any]] = lambda labels: labels,
) -> ArraySource:
    """The images, and labels passed through `as_integers`, of a file of several named arrays.

    Raises DataError if an array is missing, is ambiguous, or unpacks to far more than the size of the file.
    """
    images = chosen_key(arrays, options.key, path)
    array = arrays[images]
    check_ratio(math.prod(array.shape) * array.dtype.itemsize, path)
    if options.labels_key is not None:
        key: str | None = chosen_key(arrays, options.labels_key, path)
    else:
        usual = (name for name in LABEL_KEYS if name in arrays and name != images)
        key = next((name for name in usual if (math.prod(arrays[name].shape),) == array.shape[:1]), None)
    labels = None if key is None else as_integers(arrays[key].whole())
    return ArraySource(array, options, f"{path} ({images})", labels=labels)


def chosen_key(arrays: Mapping[str, ReadableArray], wanted: str | None, path: object) -> str:
    """Which of several named arrays is wanted, or holds the images. Raises DataError unless that is plain."""
    candidates = [wanted] if wanted is not None else [name for name in arrays if name not in LABEL_KEYS]
    if len(candidates) == 1 and candidates[0] in arrays:
        return candidates[0]
    if "images" in candidates and wanted is None:
        return "images"
    names = (f"{name} {_lengths_text(array.shape)}" for name, array in sorted(arrays.items()))
    listed = ", ".join(names) or "nothing"
    if wanted is not None:
        raise DataError(f"{path} holds no array {wanted!r}; it holds {listed}")
    raise DataError(f"{path} holds {listed}; name the images with --key")


def refuse_keys(options: ImageOptions, path: object) -> None:
    """Raise ConfigError for the key of an array in a file without keys."""
    for name in ("key", "labels_key"):
        if getattr(options, name) is not None:
            raise ConfigError(f"{name.replace('_', '-')} has no meaning for {path}, which holds one array")
