"""Files of several named arrays: MATLAB's .mat and HDF5."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import DataError
from ...config.images import ImageOptions
from .arrays import ArraySource, ReadableArray, chosen_source, sliced_array, turned_array
from .source import check_ratio, not_readable


def _hdf_array(dataset: Any) -> ReadableArray:
    """A data set of an HDF5 file, read from disk part by part."""
    array = sliced_array(dataset)

    def part(axis: int, start: int, stop: int) -> NDArray[Any]:
        try:
            return array.part(axis, start, stop)
        except (OSError, RuntimeError) as error:
            raise not_readable(dataset.name, error) from error

    return ReadableArray(array.shape, array.dtype, part)


def open_hdf(path: Path, options: ImageOptions, files: ExitStack, *, is_matlab: bool = False) -> ArraySource:
    """The images of an HDF5 file, or of a .mat of version 7.3, which is one with its axes reversed."""
    import h5py

    arrays: dict[str, ReadableArray] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape and not name.startswith("#"):
            arrays[name] = turned_array(_hdf_array(item)) if is_matlab else _hdf_array(item)

    try:
        files.enter_context(h5py.File(path, "r")).visititems(note)
    except (OSError, RuntimeError) as error:
        raise not_readable(path, error) from error
    return chosen_source(arrays, options, path, as_integers=_as_integers)


def open_mat(path: Path, options: ImageOptions, files: ExitStack) -> ArraySource:
    """The images of a .mat file up to version 7, which is read into memory whole."""
    from scipy.io import loadmat, whosmat

    try:
        check_ratio(sum(math.prod(shape) for _, shape, _ in whosmat(path)), path)
        content = loadmat(path)
    except DataError:
        raise
    except Exception as error:  # scipy raises whatever it stumbles on
        raise not_readable(path, error) from error
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
