"""Files of arrays, read without unpickling anything.

numpy's (.npy, and .npz dense, sparse or packed), MATLAB's .mat, HDF5, and idx, as MNIST is published.
"""

import gzip
import math
import posixpath
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from ...common.errors import DataError
from ...config.images import ImageOptions
from .arrays import (
    LABEL_KEYS,
    ArraySource,
    ReadableArray,
    chosen_groups,
    chosen_labels,
    chosen_source,
    packed_array,
    sliced_array,
    sparse_array,
    streamed_array,
    turned_array,
    unreadable_array,
)
from .listing import Listing, ZipEntries
from .other_files import sparse_parts
from .source import (
    LEAST_ON,
    check_length,
    check_ratio,
    not_readable,
    reading,
    refuse_options,
)

_OF_PIXELS = "channels are taken from image files"
_ONE_ARRAY = (
    "it holds one array; images and labels together are an .npz: np.savez('both.npz', images=..., labels=...)"
)
_PICKLED = (
    "it holds pickled Python objects, which could run any code when read; save images as an array of numbers, "
    "and save words with dtype=str"
)
_SPARSE = {"shape", "nonzero"}
_PACKED = {"packed_images", "image_shape"}
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def open_npy(path: Path, options: ImageOptions, files: ExitStack) -> ArraySource:
    """The images of a .npy file. Raises DataError if it is damaged, or holds objects."""
    refuse_options(options, path, ("channels",), _OF_PIXELS)
    refuse_options(options, path, ("key", "labels_key", "group_by"), _ONE_ARRAY)
    file = files.enter_context(path.open("rb"))
    shape, in_columns, dtype = _npy_header(file, path)
    if dtype.hasobject:
        raise DataError(f"{path}: {_PICKLED}")
    if not in_columns:
        check_length(path, file.tell() + math.prod(shape) * dtype.itemsize)
        return ArraySource(streamed_array(file, shape, dtype, path), options, path)
    with reading(path, ValueError):
        mapped = np.memmap(path, dtype, "r", file.tell(), shape, "F")
    return ArraySource(sliced_array(mapped), options, path)


def open_npz(
    path: Path,
    archive: zipfile.ZipFile,
    listing: Listing,
    entries: ZipEntries,
    options: ImageOptions,
    files: ExitStack,
) -> ArraySource:
    """The images of a .npz file: a dense array, `shape` and `nonzero` of a sparse one, or `bgan sample`'s.

    Arrays that are not needed are not read, whatever they hold. Raises DataError if the others are damaged, unpack
    to far more than the file's size, or hold objects.
    """
    refuse_options(options, path, ("channels",), _OF_PIXELS)
    names = {name.removesuffix(".npy"): entry for name, entry in entries.items() if name.endswith(".npy")}
    arrays = {name: _member(archive, entry, f"{name} of {path}", files) for name, entry in names.items()}
    if options.key is None and (what := sparse_parts(names, path)) is not None:
        raise DataError(f"{path} is {what}")
    if options.key is not None or "images" in arrays or not (arrays.keys() >= _SPARSE or arrays.keys() >= _PACKED):
        source = chosen_source(arrays, options, path)
    elif arrays.keys() >= _PACKED:
        source = _sampled(arrays, options, path)
    else:
        array = _sparse(arrays["shape"].whole(), arrays["nonzero"].whole(), path)
        labels = {} if options.labels_key is None else chosen_labels(arrays, options, path, "nonzero")
        source = ArraySource(array, options, path, labels=labels, groups=chosen_groups(arrays, options, path))
    if len(entries) > len(names):
        listing.left_out["files that are no arrays"] = len(entries) - len(names)
    source.notes += listing.notes
    return source


def _sampled(arrays: Mapping[str, ReadableArray], options: ImageOptions, path: Path) -> ArraySource:
    """The images of a file of `bgan sample` or `bgan generate`, which names the classes of its labels."""
    array = _packed(arrays["packed_images"], arrays["image_shape"].whole(), path)
    labels = chosen_labels(arrays, options, path, "packed_images")
    groups = chosen_groups(arrays, options, path)
    source = ArraySource(array, options, path, labels=labels, groups=groups, letters="NCHW")
    if "labels" in labels and "classes" in arrays:
        source.classes = tuple(map(str, arrays["classes"].whole().tolist()))
    return source


def _npy_header(file: IO[bytes], path: object) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is in column-major order, and dtype; leaves the file at the values."""
    with reading(path, Exception):  # numpy raises whatever it stumbles on
        version = np.lib.format.read_magic(file)
        if version > (2, 0):
            raise ValueError(f"it is of version {version[0]}, for named fields")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, in_columns, dtype = read(file)
    return shape, in_columns, dtype


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, title: str, files: ExitStack) -> ReadableArray:
    try:
        with reading(title, Exception):  # encrypted, or broken in any way
            file = files.enter_context(archive.open(entry))
            shape, in_columns, dtype = _npy_header(file, title)
    except DataError as error:
        return unreadable_array(error)
    if dtype.hasobject:
        return unreadable_array(ValueError(_PICKLED))
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


def _hdf_array(dataset: Any, *, is_matlab: bool) -> ReadableArray:
    """A data set of an HDF5 file, read from disk part by part; words, which are read whole, as text."""
    import h5py

    kind = dataset.attrs.get("MATLAB_class", b"") if is_matlab else b""
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return _words_array(dataset.shape, lambda: dataset.asstr()[...])
    if kind == b"char":
        return _words_array(dataset.shape[1:] or (1,), lambda: _rows_of_text(dataset[...]))
    if kind == b"cell":
        cells = dataset[...].ravel(order="F")
        if dataset.file[cells[0]].attrs.get("MATLAB_class") != b"char":
            return _cell_array([], dataset.name)
        return _words_array(cells.shape, lambda: [_rows_of_text(dataset.file[cell][...])[0] for cell in cells])
    if dataset.dtype.kind not in "biuf":
        return unreadable_array(ValueError(f"it holds values of type {dataset.dtype}, not numbers"))
    array = sliced_array(dataset)

    def part(axis: int, start: int, stop: int) -> NDArray[Any]:
        with reading(dataset.name, OSError, RuntimeError):
            return array.part(axis, start, stop)

    readable = ReadableArray(array.shape, array.dtype, part)
    return turned_array(readable) if is_matlab else readable


def _words_array(shape: tuple[int, ...], read: Callable[[], Any]) -> ReadableArray:
    """Words that are read when they are asked for, as a whole."""

    def part(axis: int, start: int, stop: int) -> NDArray[Any]:
        return np.asarray(read(), np.str_).reshape(shape)[(slice(None),) * axis + (slice(start, stop),)]

    return ReadableArray(shape, np.dtype(np.str_), part)


def _rows_of_text(characters: NDArray[Any]) -> list[str]:
    """The text in a table of characters as MATLAB keeps it in HDF5: a column for each."""
    return ["".join(map(chr, column)) for column in np.atleast_2d(characters.T)]


def _cell_array(cells: Sequence[ReadableArray], name: str) -> ReadableArray:
    """A cell array of MATLAB: one of words, or else one that cannot be read."""
    if cells and all(cell.dtype.kind == "U" and cell.shape == (1,) for cell in cells):
        return sliced_array(np.array([cell.whole()[0] for cell in cells]))
    return unreadable_array(ValueError(f"it is a cell array; in MATLAB join it, as in X = cat(3, {name}{{:}})"))


def open_hdf(path: Path, options: ImageOptions, files: ExitStack, *, is_matlab: bool = False) -> ArraySource:
    """The images of an HDF5 file, or of a .mat of version 7.3, which is one with its axes reversed."""
    import h5py

    refuse_options(options, path, ("channels",), _OF_PIXELS)
    arrays: dict[str, ReadableArray] = {}

    def note(name: str, item: Any) -> None:
        if "MATLAB_sparse" in item.attrs:
            arrays[name] = unreadable_array(
                ValueError(f"it is sparse; in MATLAB save it as {name} = full({name})")
            )
        elif posixpath.dirname(name) in arrays:  # a part of what is sparse
            return
        elif isinstance(item, h5py.Dataset) and item.shape and not name.startswith("#"):
            arrays[name] = _hdf_array(item, is_matlab=is_matlab)

    with reading(path, OSError, RuntimeError):
        file = files.enter_context(h5py.File(path, "r"))
        file.visititems(note)
        named = filter(None, (options.key, options.labels_key, options.group_by, "images", *LABEL_KEYS))
        for name in set(named) - arrays.keys():  # links, which are not visited
            if isinstance(item := file.get(name), h5py.Dataset):
                note(name, item)
    return chosen_source(arrays, options, path)


def open_mat(path: Path, options: ImageOptions, files: ExitStack) -> ArraySource:
    """The images of a .mat file up to version 7, which is read into memory whole."""
    from scipy.io import loadmat, whosmat
    from scipy.sparse import issparse

    refuse_options(options, path, ("channels",), _OF_PIXELS)
    with reading(path, Exception):  # scipy raises whatever it stumbles on
        check_ratio(sum(math.prod(shape) for _, shape, _ in whosmat(path)), path)
        content = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
        arrays = {name: value.toarray() if issparse(value) else value for name, value in content.items()}
    return chosen_source({name: _mat_array(value, name) for name, value in arrays.items()}, options, path)


def _mat_array(value: Any, name: str) -> ReadableArray:
    """What a .mat file holds under a name."""
    if not isinstance(value, np.ndarray) or value.dtype.names is not None:
        return unreadable_array(ValueError("it is a struct or an object; in MATLAB save its array by itself"))
    if value.dtype.kind == "O":
        return _cell_array([_mat_array(np.asarray(cell), name) for cell in value.ravel(order="F")], name)
    return sliced_array(value)


def open_idx(path: Path, options: ImageOptions, files: ExitStack) -> ArraySource:
    """The images of an idx file, which may be gzipped, and the labels of the file beside it."""
    refuse_options(options, path, ("channels",), _OF_PIXELS)
    refuse_options(options, path, ("key", "labels_key", "group_by"), _ONE_ARRAY)
    array, beside = _idx(path, files), labels_beside(path)
    labels = {str(beside): _idx(beside, files)} if beside != path and beside.is_file() else {}
    return ArraySource(array, options, path, labels=labels)


def labels_beside(path: Path) -> Path:
    """The file that would hold the labels of an idx file: its name with `labels` and `idx1`, gzipped or not."""
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    other = beside.with_suffix("") if beside.suffix == ".gz" else beside.with_name(f"{beside.name}.gz")
    return other if other.is_file() and not beside.exists() else beside


def _idx(path: Path, files: ExitStack) -> ReadableArray:
    plain: IO[bytes] = files.enter_context(path.open("rb"))
    is_zipped = plain.read(2) == b"\x1f\x8b"
    plain.seek(0)
    file = cast(IO[bytes], gzip.GzipFile(fileobj=plain)) if is_zipped else plain
    with reading(path, struct.error, ValueError, EOFError, OSError):
        zeros, code, axes = struct.unpack(">HBB", file.read(4))
        shape = struct.unpack(f">{axes}I", file.read(4 * axes))
        if zeros or code not in IDX_TYPES or not axes:
            raise ValueError("it is no idx file")
    dtype = np.dtype(IDX_TYPES[code])
    length = math.prod(shape) * dtype.itemsize
    if is_zipped:
        check_ratio(length, path)
    else:
        check_length(path, file.tell() + length)
    return streamed_array(file, shape, dtype, path)
