"""Files of arrays, read without unpickling anything.

numpy's (.npy, and .npz dense, sparse or packed), MATLAB's .mat, HDF5, and idx, as MNIST is published.
"""

import gzip
import math
import struct
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from ...common.errors import DataError
from ...config.images import ImageOptions
from .arrays import (
    ArraySource,
    ReadableArray,
    chosen_key,
    chosen_source,
    packed_array,
    refuse_keys,
    sliced_array,
    sparse_array,
    streamed_array,
    turned_array,
)
from .source import LEAST_ON, check_archive, check_length, check_ratio, not_readable, reading

_SPARSE = {"shape", "nonzero"}
_PACKED = {"packed_images", "image_shape"}
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def open_npy(path: Path, options: ImageOptions, files: ExitStack) -> ArraySource:
    """The images of a .npy file. Raises DataError if it is damaged, or holds objects."""
    refuse_keys(options, path)
    file = files.enter_context(path.open("rb"))
    shape, in_columns, dtype = _npy_header(file, path)
    if not in_columns:
        check_length(path, file.tell() + math.prod(shape) * dtype.itemsize)
        return ArraySource(streamed_array(file, shape, dtype, path), options, path)
    with reading(path, ValueError):
        mapped = np.memmap(path, dtype, "r", file.tell(), shape, "F")
    return ArraySource(sliced_array(mapped), options, path)


def open_npz(path: Path, archive: zipfile.ZipFile, options: ImageOptions, files: ExitStack) -> ArraySource:
    """The images of a .npz file: a dense array, `shape` and `nonzero` of a sparse one, or `bgan sample`'s.

    Raises DataError if it is damaged, unpacks to far more than its size, or holds objects.
    """
    check_archive(archive, path)
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    is_sparse = options.key is None and set(names) >= _SPARSE and "images" not in names
    is_packed = options.key is None and set(names) == _PACKED
    if is_sparse:
        names = [name for name in names if name in {*_SPARSE, options.labels_key}]
    arrays = {name: _member(archive, name, path, files) for name in names}
    if is_sparse:
        key = options.labels_key
        labels = None if key is None else arrays[chosen_key(arrays, key, path)].whole()
        array = _sparse(arrays["shape"].whole(), arrays["nonzero"].whole(), path)
        return ArraySource(array, options, path, labels=labels)
    if is_packed:
        return ArraySource(_packed(arrays["packed_images"], arrays["image_shape"].whole(), path), options, path)
    return chosen_source(arrays, options, path)


def _npy_header(file: IO[bytes], path: object) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is in column-major order, and dtype; leaves the file at the values."""
    with reading(path, Exception):  # numpy raises whatever it stumbles on
        version = np.lib.format.read_magic(file)
        if version > (2, 0):
            raise ValueError(f"it is of version {version[0]}, for named fields")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, in_columns, dtype = read(file)
    if dtype.hasobject:
        raise DataError(
            f"{path} holds pickled Python objects, which could run any code when read; "
            "save the images as an array of numbers"
        )
    return shape, in_columns, dtype


def _member(archive: zipfile.ZipFile, name: str, path: Path, files: ExitStack) -> ReadableArray:
    title = f"{name} of {path}"
    with reading(title, Exception):  # encrypted, or broken in any way
        file = files.enter_context(archive.open(f"{name}.npy"))
    shape, in_columns, dtype = _npy_header(file, title)
    if in_columns and len(shape) > 1:
        return turned_array(streamed_array(file, shape[::-1], dtype, title))
    return streamed_array(file, shape, dtype, title)


def _sparse(lengths: NDArray[Any], indices: NDArray[Any], path: Path) -> ReadableArray:
    if lengths.dtype.kind not in "iu" or lengths.ndim != 1 or (lengths < 1).any():
        raise not_readable(path, "its shape is not a list of lengths")
    if indices.dtype.kind not in "iu" or indices.ndim != 2 or len(indices) != len(lengths):
        raise not_readable(path, "its nonzero is not a row of indices for each axis of its shape")
    if ((indices < 0) | (indices >= lengths[:, None])).any():
        raise not_readable(path, "its nonzero has indices beyond its shape")
    shape = tuple(lengths.tolist())
    if indices.shape[1] < LEAST_ON * math.prod(shape):
        raise DataError(f"{path}: its nonzero has less than {LEAST_ON:.1%} of the values of its shape")
    return sparse_array(shape, indices)


def _packed(rows: ReadableArray, shape: NDArray[Any], path: Path) -> ReadableArray:
    pixels = math.prod(shape.ravel().tolist()) if shape.dtype.kind in "iu" else 0
    if shape.shape != (3,) or pixels < 1 or rows.dtype != np.uint8 or rows.shape[1:] != ((pixels + 7) // 8,):
        raise not_readable(path, "its packed_images do not fit its image_shape")
    return packed_array(rows, tuple(shape.tolist()))


def _hdf_array(dataset: Any) -> ReadableArray:
    """A data set of an HDF5 file, read from disk part by part."""
    array = sliced_array(dataset)

    def part(axis: int, start: int, stop: int) -> NDArray[Any]:
        with reading(dataset.name, OSError, RuntimeError):
            return array.part(axis, start, stop)

    return ReadableArray(array.shape, array.dtype, part)


def open_hdf(path: Path, options: ImageOptions, files: ExitStack, *, is_matlab: bool = False) -> ArraySource:
    """The images of an HDF5 file, or of a .mat of version 7.3, which is one with its axes reversed."""
    import h5py

    arrays: dict[str, ReadableArray] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape and not name.startswith("#"):
            arrays[name] = turned_array(_hdf_array(item)) if is_matlab else _hdf_array(item)

    with reading(path, OSError, RuntimeError):
        files.enter_context(h5py.File(path, "r")).visititems(note)
    return chosen_source(arrays, options, path, as_integers=_as_integers)


def open_mat(path: Path, options: ImageOptions, files: ExitStack) -> ArraySource:
    """The images of a .mat file up to version 7, which is read into memory whole."""
    from scipy.io import loadmat, whosmat

    with reading(path, Exception):  # scipy raises whatever it stumbles on
        check_ratio(sum(math.prod(shape) for _, shape, _ in whosmat(path)), path)
        content = loadmat(path)
    arrays = {
        name: sliced_array(value)
        for name, value in content.items()
        if isinstance(value, np.ndarray) and not name.startswith("__")
    }
    return chosen_source(arrays, options, path, as_integers=_as_integers)


def _as_integers(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels as integers where MATLAB has them as floats."""
    is_whole = labels.dtype.kind == "f" and np.array_equal(labels, np.round(labels))
    return labels.astype(np.int64) if is_whole else labels


def open_idx(path: Path, options: ImageOptions, files: ExitStack) -> ArraySource:
    """The images of an idx file, which may be gzipped, and the labels of the file beside it."""
    refuse_keys(options, path)
    array, beside = _idx(path, files), labels_beside(path)
    labels = _idx(beside, files).whole() if beside != path and beside.is_file() else None
    return ArraySource(array, options, path, labels=labels)


def labels_beside(path: Path) -> Path:
    """The file that would hold the labels of an idx file of images: its name with `labels` and `idx1`."""
    return path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))


def _idx(path: Path, files: ExitStack) -> ReadableArray:
    plain: IO[bytes] = files.enter_context(path.open("rb"))
    is_zipped = plain.read(2) == b"\x1f\x8b"
    plain.seek(0)
    file = cast(IO[bytes], gzip.GzipFile(fileobj=plain)) if is_zipped else plain
    with reading(path, struct.error, ValueError, EOFError, OSError):
        zeros, code, axes = struct.unpack(">HBB", file.read(4))
        shape = struct.unpack(f">{axes}I", file.read(4 * axes))
        if zeros or code not in _IDX_TYPES or not axes:
            raise ValueError("it is no idx file")
    dtype = np.dtype(_IDX_TYPES[code])
    length = math.prod(shape) * dtype.itemsize
    if is_zipped:
        check_ratio(length, path)
    else:
        check_length(path, file.tell() + length)
    return streamed_array(file, shape, dtype, path)
