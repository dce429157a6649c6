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
from .arrays import ArraySource, ReadableArray, WholeArray, chosen_key, chosen_labels
from .limits import check_ratio
from .source import not_readable


class HdfArray:
    """A data set of an HDF5 file, read from disk part by part; turned round where MATLAB wrote it."""

    def __init__(self, dataset: Any, *, is_turned: bool) -> None:
        self.shape: tuple[int, ...] = dataset.shape[::-1] if is_turned else dataset.shape
        self.dtype: np.dtype[Any] = dataset.dtype
        self._dataset = dataset
        self._is_turned = is_turned

    def part(self, axis: int, start: int, stop: int) -> NDArray[Any]:
        """The array from `start` to `stop` along an axis."""
        own = len(self.shape) - 1 - axis if self._is_turned else axis
        try:
            read: NDArray[Any] = self._dataset[(slice(None),) * own + (slice(start, stop),)]
        except (OSError, RuntimeError) as error:
            raise not_readable(self._dataset.name, error) from error
        return read.transpose() if self._is_turned else read


def open_hdf(path: Path, options: ImageOptions, files: ExitStack, *, is_matlab: bool = False) -> ArraySource:
    """The images of an HDF5 file, or of a .mat of version 7.3, which is one with its axes turned round."""
    import h5py

    try:
        file = files.enter_context(h5py.File(path, "r"))
        arrays: dict[str, ReadableArray] = {}
        file.visititems(lambda name, item: _note(arrays, name, item, is_matlab))
    except (OSError, RuntimeError) as error:
        raise not_readable(path, error) from error
    return _source(arrays, options, path)


def _note(arrays: dict[str, ReadableArray], name: str, item: Any, is_turned: bool) -> None:
    if hasattr(item, "dtype") and item.shape and not name.startswith("#"):
        arrays[name] = HdfArray(item, is_turned=is_turned)


def open_mat(path: Path, options: ImageOptions, files: ExitStack) -> ArraySource:
    """The images of a .mat file up to version 7, which is read into memory as a whole."""
    from scipy.io import loadmat, whosmat

    try:
        check_ratio(sum(math.prod(shape) for _, shape, _ in whosmat(path)), path)
        content = loadmat(path)
    except DataError:
        raise
    except Exception as error:  # scipy raises whatever it stumbles on
        raise not_readable(path, error) from error
    arrays: dict[str, ReadableArray] = {
        name: WholeArray(value)
        for name, value in content.items()
        if isinstance(value, np.ndarray) and not name.startswith("__")
    }
    return _source(arrays, options, path)


def _source(arrays: dict[str, ReadableArray], options: ImageOptions, path: Path) -> ArraySource:
    shapes = {name: array.shape for name, array in arrays.items()}
    key = chosen_key(shapes, options.key, path)
    check_ratio(math.prod(shapes[key]) * arrays[key].dtype.itemsize, path)
    labels_key = chosen_labels(shapes, options.labels_key, key, path)
    labels = None
    if labels_key is not None:
        array = arrays[labels_key]
        labels = _integers(array.part(0, 0, array.shape[0]))
    return ArraySource(arrays[key], options, f"{path} ({key})", labels=labels)


def _integers(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels as integers where MATLAB has them as floats."""
    is_whole = labels.dtype.kind == "f" and np.array_equal(labels, np.round(labels))
    return labels.astype(np.int64) if is_whole else labels
