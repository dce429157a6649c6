"""Images that lie in one array, read some at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...common.errors import ConfigError, DataError
from ...config.images import ImageOptions
from .axes import ImageAxes, as_labels, as_numbers
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
    """An array in memory, or mapped into it."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.shape = array.shape
        self.dtype = array.dtype
        self._array = array

    def part(self, axis: int, start: int, stop: int) -> NDArray[Any]:
        """The array from `start` to `stop` along an axis."""
        return self._array[(slice(None),) * axis + (slice(start, stop),)]


class StreamedArray:
    """A row-major array of which a file has the bytes, one after the other, from where it stands."""

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
            if (np.diff(self._indices[axis]) < 0).any():
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
        notes: Sequence[str] = (),
    ) -> None:
        as_numbers(np.empty(0, array.dtype), path)
        self._array = array
        self._axes = ImageAxes(array.shape, axes=options.axes, row_shape=options.row_lengths, path=path)
        self._labels = None if labels is None else as_labels(labels, self.count, path)
        self._path = path
        self.notes = tuple(notes)
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


def chosen_key(shapes: dict[str, tuple[int, ...]], wanted: str | None, path: object) -> str:
    """Which of several named arrays holds the images. Raises DataError where that is not plain."""
    listed = (
        ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items())) or "nothing"
    )
    if wanted is not None:
        if wanted not in shapes:
            raise DataError(f"{path} holds no array {wanted!r}; it holds {listed}")
        return wanted
    candidates = [name for name in shapes if name not in LABEL_KEYS]
    if len(candidates) == 1:
        return candidates[0]
    if "images" in candidates:
        return "images"
    raise DataError(f"{path} holds {listed}; name the images with --key")


def chosen_labels(shapes: dict[str, tuple[int, ...]], wanted: str | None, images: str, path: object) -> str | None:
    """Which of several named arrays holds the labels: the one that is named, or one with a usual name."""
    if wanted is not None:
        return chosen_key(shapes, wanted, path)
    usual: Iterable[str] = (name for name in LABEL_KEYS if name in shapes and name != images)
    return next((name for name in usual if math.prod(shapes[name]) == shapes[images][0]), None)


def refuse_keys(options: ImageOptions, path: object) -> None:
    """Raise ConfigError where a key is asked for of a file that has none."""
    for name in ("key", "labels_key"):
        if getattr(options, name) is not None:
            raise ConfigError(f"{name.replace('_', '-')} has no meaning for {path}, which holds one array")
