"""Images that lie in one array of any layout, read some at a time as [N, C, H, W]."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import DataError
from ...config.images import ImageOptions
from .labels import ClassLabels, checked_groups, class_labels, fits
from .layout import ImageLayout, lengths_text
from .other_files import joined
from .source import BadImages, ImageSource, RawImages, check_ratio, not_readable, reading

_CHUNK_BYTES = 2**22
_NAMED_AT_MOST, _LISTED_AT_MOST = 4, 12
LABEL_KEYS = ("labels", "label", "y")


@dataclass(frozen=True, slots=True)
class ReadableArray:
    """An array that need not be in memory."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    part: Callable[[int, int, int], NDArray[Any]]
    """(axis, start, stop) to the array from `start` to `stop` along that axis. Parts are asked for in order."""
    problem: Exception | None = None
    """Why it cannot be read: a ValueError for values that are of no use, a DataError for damage."""

    def whole(self) -> NDArray[Any]:
        """All of it, with one axis at least."""
        return self.part(0, 0, self.shape[0] if self.shape else 1)


def unreadable_array(problem: Exception) -> ReadableArray:
    """An array that may stand in a file as long as nobody needs it."""
    return ReadableArray((), np.dtype(object), lambda *_: np.empty(0), problem)


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

    return row_array(rows, shape, dtype)


def row_array(rows: Callable[[int], NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any]) -> ReadableArray:
    """An array of which `rows` returns the next so many rows; all of it is read to cut another axis."""
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


def _as_numbers(array: NDArray[Any], path: object) -> NDArray[Any]:
    """The array itself, if it holds numbers or truth values. Raises DataError."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path} holds values of type {array.dtype}; pixels are numbers")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


class ArraySource(ImageSource):
    """The images of one array."""

    def __init__(
        self,
        array: ReadableArray,
        options: ImageOptions,
        path: object,
        *,
        labels: Mapping[str, ReadableArray] = MappingProxyType({}),
        groups: ReadableArray | None = None,
        letters: str = "",
    ) -> None:
        """`labels` are the arrays that may hold its labels, by name, `letters` its axes, where those are known.

        Raises DataError if the images cannot be made out, or if labels that --labels-key names do not fit them.
        """
        if array.problem is not None:
            raise DataError(f"{path}: {array.problem}") from array.problem
        _as_numbers(np.empty(0, array.dtype), path)
        self._array = array
        shapes = [own.shape for own in labels.values()]
        self._layout = ImageLayout(array.shape, options, path, labels=shapes, letters=letters)
        self.count = self._layout.count
        self._path = path
        self._labels, chosen, reasons = None, None, []
        for name, own in labels.items():
            try:
                self._labels, self.classes = _labels_of(own, self.count)
                chosen = own
                break
            except ValueError as error:
                reasons.append(f"the labels in {name} are left out: {error}")
        if self._labels is None and reasons and options.labels_key is not None:
            text = reasons[0].replace(" are left out", "", 1)
            raise DataError(f"{path}: {text}; name others with --labels-key")
        if groups is not None and groups is chosen:  # an array is read but once
            self.groups = self._labels
        elif groups is not None:
            self.groups = checked_groups(lambda: _labels_of(groups, self.count), options, path)
        notes = [self._layout.note] if self._layout.note else []
        self.notes = (*notes, *(() if self._labels is not None else reasons))

    def chunks(self, bad: BadImages) -> Iterator[RawImages]:
        """All images, some at a time; none is bad by itself."""
        layout = self._layout
        steps = self._array.shape[layout.first]
        at_once = max(1, _CHUNK_BYTES // (layout.pixels_per_step * self._array.dtype.itemsize))
        for start in range(0, steps, at_once):
            part = self._array.part(layout.first, start, min(start + at_once, steps))
            images = layout.images(_as_numbers(part, self._path))
            first = start * layout.images_per_step
            labels = None if self._labels is None else self._labels[first : first + len(images)]
            yield RawImages(images, labels, first)


def _labels_of(array: ReadableArray, count: int) -> ClassLabels:
    """Labels that lie in an array, which is not read if they cannot."""
    if array.problem is not None:
        raise array.problem
    if not fits(array.shape, count):
        raise ValueError(
            f"they are of shape {lengths_text(array.shape)}, not one for each of the {count:,} images"
        )
    return class_labels(array.whole(), count)


def chosen_source(arrays: Mapping[str, ReadableArray], options: ImageOptions, path: Path) -> ArraySource:
    """The images and labels of a file of several named arrays.

    Raises DataError if an array is missing, is ambiguous, or unpacks to far more than the size of the file.
    """
    images = chosen_key(arrays, options.key, path)
    array = arrays[images]
    check_ratio(math.prod(array.shape) * array.dtype.itemsize, path)
    labels = chosen_labels(arrays, options, path, images)
    groups = chosen_groups(arrays, options, path)
    source = ArraySource(array, options, f"{path} ({images})", labels=labels, groups=groups)
    used = {images, options.group_by, *labels}
    unused = [_listed_array(name, arrays[name]) for name in sorted(arrays.keys() - used)]
    if unused:
        names = ", ".join(unused[:_NAMED_AT_MOST]) + (", ..." if len(unused) > _NAMED_AT_MOST else "")
        source.notes = (*source.notes, f"read as images: {images}; not used: {names} (--key, --labels-key)")
    return source


def chosen_labels(
    arrays: Mapping[str, ReadableArray], options: ImageOptions, path: object, images: str
) -> dict[str, ReadableArray]:
    """The arrays that may hold the labels: the one of --labels-key, or those with a usual name."""
    if options.labels_key is not None:
        return {options.labels_key: arrays[chosen_key(arrays, options.labels_key, path)]}
    return {name: arrays[name] for name in LABEL_KEYS if name in arrays and name != images}


def chosen_groups(
    arrays: Mapping[str, ReadableArray], options: ImageOptions, path: object
) -> ReadableArray | None:
    """The array of --group-by. Raises DataError where there is none of that name."""
    return None if options.group_by is None else arrays[chosen_key(arrays, options.group_by, path)]


def chosen_key(arrays: Mapping[str, ReadableArray], wanted: str | None, path: object) -> str:
    """Which of several named arrays is wanted, or holds the images. Raises DataError unless that is plain."""
    if wanted is not None:
        if wanted in arrays:
            return wanted
        raise DataError(f"{path} holds no array {wanted!r}; it holds {_listed(arrays)}")
    candidates = [name for name in arrays if name not in LABEL_KEYS]
    if "images" in candidates:
        return "images"
    if len(candidates) != 1:
        candidates = [name for name in candidates if _may_be_images(arrays[name])]
    if len(candidates) == 1:
        return candidates[0]
    if not arrays:
        raise DataError(f"{path} holds no arrays")
    each = len({arrays[name].shape for name in candidates}) == 1 and arrays[candidates[0]].shape[2:] == ()
    advice = f"; if each is one image, join them: {joined(Path(str(path)))}" if each else ""
    raise DataError(f"{path} holds {_listed(arrays)}; name the images with --key{advice}")


def _may_be_images(array: ReadableArray) -> bool:
    return array.problem is None and array.dtype.kind in "biuf" and sum(own > 1 for own in array.shape) > 1


def _listed(arrays: Mapping[str, ReadableArray]) -> str:
    names = [_listed_array(name, array) for name, array in sorted(arrays.items())]
    more = f", ... ({len(names):,} arrays)" if len(names) > _LISTED_AT_MOST else ""
    return (", ".join(names[:_LISTED_AT_MOST]) or "nothing") + more


def _listed_array(name: str, array: ReadableArray) -> str:
    return f"{name} {lengths_text(array.shape)}" if array.problem is None else f"{name} (not readable)"
