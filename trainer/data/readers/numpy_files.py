"""numpy's files (.npy, .npz dense, sparse or packed) and idx files, read without unpickling anything."""

from __future__ import annotations

import math
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import DataError
from ...config.images import ImageOptions
from .arrays import (
    ArraySource,
    PackedRows,
    ReadableArray,
    SparseArray,
    StreamedArray,
    WholeArray,
    chosen_key,
    chosen_labels,
    refuse_keys,
)
from .limits import check_archive
from .source import LEAST_ON, check_length, not_readable

_SPARSE = {"shape", "nonzero"}
_PACKED = {"packed_images", "image_shape"}


def open_npy(path: Path, options: ImageOptions, files: ExitStack) -> ArraySource:
    """The images of a .npy file. Raises DataError where it is damaged, or holds objects."""
    refuse_keys(options, path)
    file = files.enter_context(path.open("rb"))
    shape, in_columns, dtype = _npy_header(file, path)
    if not in_columns:
        check_length(path, file.tell() + math.prod(shape) * dtype.itemsize)
        return ArraySource(StreamedArray(file, shape, dtype, path), options, path)
    try:
        mapped = np.memmap(path, dtype, "r", file.tell(), shape, "F")
    except ValueError as error:
        raise not_readable(path, error) from error
    return ArraySource(WholeArray(mapped), options, path)


def open_npz(path: Path, zipped: zipfile.ZipFile, options: ImageOptions, files: ExitStack) -> ArraySource:
    """The images of a .npz file: a dense array, `shape` and `nonzero` of a sparse one, or `bgan sample`'s.

    Raises DataError where it is damaged, unpacks to far more than it is, or holds objects.
    """
    check_archive(zipped, path)
    archive = _Arrays(zipped, path, files)
    names = archive.names
    if options.key is None and set(names) >= _SPARSE and "images" not in names:
        labels = None if options.labels_key is None else archive.whole(options.labels_key)
        return ArraySource(_sparse(archive), options, path, labels=labels)
    if options.key is None and set(names) == _PACKED:
        return ArraySource(_packed(archive), options, path)
    shapes = {name: archive.shape(name) for name in names}
    key = chosen_key(shapes, options.key, path)
    labels_key = chosen_labels(shapes, options.labels_key, key, path)
    return ArraySource(
        archive.array(key),
        options,
        f"{path} ({key})",
        labels=None if labels_key is None else archive.whole(labels_key),
    )


def _npy_header(file: IO[bytes], path: object) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it lies in columns, and dtype; the file then stands at the values."""
    try:
        version = np.lib.format.read_magic(file)
        if version > (2, 0):
            raise ValueError(f"it is of version {version[0]}, for named fields")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, in_columns, dtype = read(file)
    except Exception as error:  # numpy raises whatever it stumbles on
        raise not_readable(path, error) from error
    if dtype.hasobject:
        raise DataError(
            f"{path} holds pickled Python objects, which could run any code when they are read; "
            "save the images as an array of numbers"
        )
    return shape, in_columns, dtype


class _Arrays:
    """The arrays of an .npz file."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, files: ExitStack) -> None:
        self.path = path
        self.names = [name.removesuffix(".npy") for name in archive.namelist()]
        self._archive = archive
        self._files = files

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one of them."""
        return _npy_header(self._open(name), f"{name} of {self.path}")[0]

    def array(self, name: str) -> ReadableArray:
        """One of them, to be read some at a time if its rows lie one after the other."""
        file, title = self._open(name), f"{name} of {self.path}"
        shape, in_columns, dtype = _npy_header(file, title)
        if in_columns and len(shape) > 1:
            turned = StreamedArray(file, shape[::-1], dtype, title)
            return WholeArray(turned.part(0, 0, shape[-1]).transpose())
        return StreamedArray(file, shape, dtype, title)

    def whole(self, name: str) -> NDArray[Any]:
        """All of one of them, which has at least one axis. Raises DataError where there is no such one."""
        chosen_key(dict.fromkeys(self.names, ()), name, self.path)
        array = self.array(name)
        return array.part(0, 0, array.shape[0] if array.shape else 1)

    def _open(self, name: str) -> IO[bytes]:
        try:
            return self._files.enter_context(self._archive.open(f"{name}.npy"))
        except Exception as error:  # encrypted, or broken in any way
            raise not_readable(f"{name} of {self.path}", error) from error


def _sparse(archive: _Arrays) -> SparseArray:
    lengths, indices = archive.whole("shape"), archive.whole("nonzero")
    if lengths.dtype.kind not in "iu" or lengths.ndim != 1 or (lengths < 1).any():
        raise not_readable(archive.path, "its shape is not a list of lengths")
    if indices.dtype.kind not in "iu" or indices.ndim != 2 or len(indices) != len(lengths):
        raise not_readable(archive.path, "its nonzero is not a row of indices for each axis of its shape")
    if ((indices < 0) | (indices >= lengths[:, None])).any():
        raise not_readable(archive.path, "its nonzero has indices beyond its shape")
    shape = tuple(lengths.tolist())
    if indices.shape[1] < LEAST_ON * math.prod(shape):
        raise DataError(f"{archive.path}: its nonzero has less than {LEAST_ON:.1%} of the values of its shape")
    return SparseArray(shape, indices)


def _packed(archive: _Arrays) -> PackedRows:
    rows, shape = archive.array("packed_images"), archive.whole("image_shape")
    pixels = math.prod(shape.ravel().tolist()) if shape.dtype.kind in "iu" else 0
    if shape.shape != (3,) or pixels < 1 or rows.dtype != np.uint8 or rows.shape[1:] != ((pixels + 7) // 8,):
        raise not_readable(archive.path, "its packed_images do not fit its image_shape")
    return PackedRows(rows, tuple(shape.tolist()))


def is_npz(archive: zipfile.ZipFile) -> bool:
    """Whether a zip is one of numpy's: all of its files are .npy."""
    names = archive.namelist()
    return bool(names) and all(name.endswith(".npy") for name in names)
