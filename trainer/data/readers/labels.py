"""Labels of every usual type and form, as integers and the names of their classes.

Integers, floats that are whole, and words (text or bytes), as [N], [N, 1], [1, N], or one-hot as [N, K] or [K, N].
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import DataError
from ...config.images import ImageOptions

NO_LABEL = np.iinfo(np.int64).min
"""Stands for the label of an image that has none."""
_EXACT = 2.0**53  # floats are whole up to here

ClassLabels = tuple[NDArray[np.int64], tuple[str, ...] | None]
"""Labels [N], and the names of labels 0, 1, ... where they have any."""


def class_labels(array: NDArray[Any], count: int) -> ClassLabels:
    """The labels of `count` images. NaN, None and empty words become NO_LABEL.

    Raises ValueError with the reason if the array does not hold one label for each image.
    """
    values = _one_for_each(array, count)
    if values.dtype.kind in "biu":
        if values.max(initial=0) > np.iinfo(np.int64).max:
            raise ValueError("they are beyond 64 bits")
        return values.astype(np.int64), None
    if values.dtype.kind == "f":
        return _whole(values), None
    if values.dtype.kind in "OSU":
        return _numbered([_word(value) for value in values.tolist()])
    raise ValueError(f"they are of type {values.dtype}, neither whole numbers nor words")


def checked_groups(read: Callable[[], ClassLabels], options: ImageOptions, path: object) -> NDArray[np.int64]:
    """The group of each image, which is read as labels are. Raises DataError where an image has none."""
    try:
        groups, _ = read()
        if (groups == NO_LABEL).any():
            raise ValueError(f"{(groups == NO_LABEL).sum():,} images have none")
    except ValueError as error:
        raise DataError(f"{path}: the groups in {options.group_by}: {error}; see --group-by") from error
    return groups


def fits(shape: tuple[int, ...], count: int) -> bool:
    """Whether an array of this shape can hold the labels of `count` images, one-hot of fewer classes too."""
    lengths = [length for length in shape if length != 1]
    return len(lengths) <= 2 and count == max(lengths, default=1)


def in_class_order(names: Sequence[str]) -> list[str]:
    """Distinct names of classes in the order of their labels: by number if all are numbers, else by name."""
    distinct = sorted(set(names))
    is_numeric = all(re.fullmatch(r"-?\d+", name, re.ASCII) for name in distinct)
    return sorted(distinct, key=int) if is_numeric else distinct


def _one_for_each(array: NDArray[Any], count: int) -> NDArray[Any]:
    values = array.reshape([length for length in array.shape if length != 1] or [1])
    if values.shape == (count,):
        return values
    if values.ndim == 2 and count in values.shape and values.dtype.kind in "biuf":
        rows = values if len(values) == count else values.T
        if ((rows == 0) | (rows == 1)).all() and (rows.sum(axis=1) == 1).all():
            return np.asarray(rows.argmax(axis=1))
    shape = "x".join(map(str, array.shape))
    raise ValueError(f"they are {array.dtype} of shape {shape}, not one for each of the {count:,} images")


def _whole(values: NDArray[Any]) -> NDArray[np.int64]:
    is_missing = np.isnan(values)
    known = np.where(is_missing, 0, values)
    if (known != np.round(known)).any() or (np.abs(known) > _EXACT).any():
        raise ValueError("they are fractions, such as those of a measurement")
    return np.where(is_missing, NO_LABEL, known.astype(np.int64))


def _word(value: Any) -> str:
    """One word; empty for what stands for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):  # as pandas writes it
        return ""
    if isinstance(value, bytes):
        return value.decode(errors="replace").rstrip("\0 ")
    if isinstance(value, str):
        return value.rstrip("\0 ")  # of the tables of characters that MATLAB and HDF5 pad
    raise ValueError(f"they are objects of type {type(value).__name__}")


def _numbered(words: list[str]) -> ClassLabels:
    names = in_class_order([word for word in words if word])
    numbers = {name: number for number, name in enumerate(names)} | {"": NO_LABEL}
    return np.array([numbers[word] for word in words], np.int64), tuple(names)
