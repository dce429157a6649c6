"""Readers that other packages add, as entry points: of a path, an array of images, or a pair of it and labels."""

from pathlib import Path

import numpy as np

from ...common import entry_points
from ...common.errors import ConfigError, DataError
from ...common.text import first_line
from ...config.images import ImageOptions
from .arrays import ArraySource, ReadableArray, sliced_array
from .source import ImageSource


def open_own(path: Path, options: ImageOptions, name: str) -> ImageSource:
    """What a reader makes of a file or folder.

    Raises DataError where it fails or gives no images, and ConfigError where there is no such reader.
    """
    read, what = entry_points.load(entry_points.READERS, name), entry_points.shown(entry_points.READERS, name)
    if not callable(read):
        raise ConfigError(f"{what} is of type {type(read).__name__}, not a function of a path")
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    try:
        found = read(path)
    except Exception as error:  # of code that is not ours
        raise DataError(f"{path}: {what} fails ({type(error).__name__}: {first_line(error)})") from error
    images, labels = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    known = {} if labels is None else {"labels": sliced_array(np.asarray(labels))}
    return ArraySource(_array(images, what, path), options, path, labels=known)


def _array(images: object, what: str, path: Path) -> ReadableArray:
    if not hasattr(images, "shape") or not hasattr(images, "dtype"):
        raise DataError(f"{path}: {what} gives type {type(images).__name__}, not an array of images")
    return sliced_array(images)
