"""Images that lie in one array, read some at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...common.errors import ConfigError, DataError
from ...config.images import ImageOptions
from .axes import ImageAxes, as_labels, as_numbers, lengths_text
from .limits import check_ratio
from .source import BadImages, RawImages, not_readable

_CHUNK_BYTES = 2**22
LABEL_KEYS = ("labels", "label", "y")


class ReadableArray(Protocol):
    """An array that need not be in memory."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def part(self, axis: int, start: int, stop: int) -> NDArray[Any]:
        """The array from `start` to `stop` along an axis. Parts are asked for in order."""


class WholeArray:
    """An array in memory or mapped into it, or what can be sliced like one."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.shape = array.shape
        self.dtype = array.dtype
        self._array: Any = array

    def part(self, axis: int, start: int, stop: int) -> NDArray[Any]:
        """The array from `start` to `stop` along an axis."""
        part: NDArray[Any] = self._array[(slice(None),) * axis + (slice(start, stop),)]
        return part


class StreamedArray:
    """A row-major array, whose bytes a file has from its current position on."""

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], path: object) -> None:
        self.shape = shape
        self.dtype = dtype
        self._file = file
        self._path = path
        self._whole: WholeArray | None = None

    def part(self, axis: int, start: int, stop: int) -> NDArray[Any]:
        """The array from `start` to `stop` along an axis; any but the first takes all of it into memory."""
        if axis == 0:
            return self._rows(stop - start)
        if self._whole is None:
            self._whole = WholeArray(self._rows(self.shape[0]))
        return self._whole.part(axis, start, stop)

    def _rows(self, count: int) -> NDArray[Any]:
        wanted = count * math.prod(self.shape[1:]) * self.dtype.itemsize
        try:
            content = self._file.read(wanted)
        except Exception as error:  # zipfile, zlib and the file system raise whatever they stumble on
            raise not_readable(self._path, error) from error
        if len(content) != wanted:
            raise not_readable(self._path, "it ends before its last image")
        return np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:])


class TurnedArray:
    """An array whose axes lie in reverse order in its file, as Fortran and MATLAB write them."""

    def __init__(self, array: ReadableArray) -> None:
        self.shape = array.shape[::-1]
        self.dtype = array.dtype
        self._array = array

    def part(self, axis: int, start: int, stop: int) -> NDArray[Any]:
        """The array from `start` to `stop` along an axis."""
        return self._array.part(len(self.shape) - 1 - axis, start, stop).transpose()


class SparseArray:
    """The indices of the values that are on, as numpy's `nonzero` gives them: integers [axes, values]."""

    def __init__(self, shape: tuple[int, ...], indices: NDArray[Any]) -> None:
        self.shape = shape
        self.dtype = np.dtype(np.bool_)
        self._indices = indices
        self._sorted_by: int | None = None

    def part(self, axis: int, start: int, stop: int) -> NDArray[Any]:
        """The dense array from `start` to `stop` along an axis."""
        if axis != self._sorted_by:
            self._indices = self._indices[:, np.argsort(self._indices[axis], kind="stable")]
            self._sorted_by = axis
        first, last = np.searchsorted(self._indices[axis], (start, stop))
        indices = self._indices[:, first:last].copy()
        indices[axis] -= start
        dense = np.zeros((*self.shape[:axis], stop - start, *self.shape[axis + 1 :]), np.bool_)
        dense[tuple(indices)] = True
        return dense


class PackedRows:
    """Images as `bgan sample` packs them: uint8 [N, bytes], one bit a pixel."""

    def __init__(self, rows: ReadableArray, image_shape: tuple[int, ...]) -> None:
        self.shape = (rows.shape[0], *image_shape)
        self.dtype = np.dtype(np.uint8)
        self._rows = rows

    def part(self, axis: int, start: int, stop: int) -> NDArray[Any]:
        """The images from `start` to `stop`; the axis is always that of images."""
        rows = self._rows.part(0, start, stop)
        count = math.prod(self.shape[1:])
        return np.unpackbits(rows, axis=1, count=count).reshape(len(rows), *self.shape[1:])


class ArraySource:
    """The images of one array."""

    def __init__(
        self,
        array: ReadableArray,
        options: ImageOptions,
        path: object,
        *,
        labels: NDArray[Any] | None = None,
    ) -> None:
        as_numbers(np.empty(0, array.dtype), path)
        self._array = array
        self._axes = ImageAxes(array.shape, axes=options.axes, row_shape=options.row_lengths, path=path)
        self._labels = None if labels is None else as_labels(labels, self.count, path)
        self._path = path
        self.notes = ()
        self.classes = None

    @property
    def count(self) -> int:
        """Images in the array."""
        return self._axes.count

    def chunks(self, bad: BadImages) -> Iterator[RawImages]:
        """All images, some at a time; none is bad by itself."""
        axes = self._axes
        steps = self._array.shape[axes.first]
        at_once = max(1, _CHUNK_BYTES // (axes.pixels_per_step * self._array.dtype.itemsize))
        for start in range(0, steps, at_once):
            part = self._array.part(axes.first, start, min(start + at_once, steps))
            images = axes.images(as_numbers(part, self._path))
            first = start * axes.images_per_step
            labels = None if self._labels is None else self._labels[first : first + len(images)]
            yield RawImages(images, labels, first)


def whole(array: ReadableArray) -> NDArray[Any]:
    """All of an array, with one axis at least."""
    return array.part(0, 0, array.shape[0] if array.shape else 1)


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
    labels = None if key is None else as_integers(whole(arrays[key]))
    return ArraySource(array, options, f"{path} ({images})", labels=labels)


def chosen_key(arrays: Mapping[str, ReadableArray], wanted: str | None, path: object) -> str:
    """Which of several named arrays is wanted, or holds the images. Raises DataError unless that is plain."""
    candidates = [wanted] if wanted is not None else [name for name in arrays if name not in LABEL_KEYS]
    if len(candidates) == 1 and candidates[0] in arrays:
        return candidates[0]
    if "images" in candidates and wanted is None:
        return "images"
    listed = (
        ", ".join(f"{name} {lengths_text(array.shape)}" for name, array in sorted(arrays.items())) or "nothing"
    )
    if wanted is not None:
        raise DataError(f"{path} holds no array {wanted!r}; it holds {listed}")
    raise DataError(f"{path} holds {listed}; name the images with --key")


def refuse_keys(options: ImageOptions, path: object) -> None:
    """Raise ConfigError for the key of an array in a file without keys."""
    for name in ("key", "labels_key"):
        if getattr(options, name) is not None:
            raise ConfigError(f"{name.replace('_', '-')} has no meaning for {path}, which holds one array")
