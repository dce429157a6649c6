"""Images in idx files, as MNIST is published."""

from __future__ import annotations

import gzip
import math
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

import numpy as np

from ...config.images import ImageOptions
from .arrays import ArraySource, ReadableArray, refuse_keys, streamed_array
from .source import check_length, check_ratio, not_readable

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


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
    try:
        zeros, code, axes = struct.unpack(">HBB", file.read(4))
        shape = struct.unpack(f">{axes}I", file.read(4 * axes))
        if zeros or code not in _IDX_TYPES or not axes:
            raise ValueError("it is no idx file")
    except (struct.error, ValueError, EOFError, OSError) as error:
        raise not_readable(path, error) from error
    dtype = np.dtype(_IDX_TYPES[code])
    length = math.prod(shape) * dtype.itemsize
    if is_zipped:
        check_ratio(length, path)
    else:
        check_length(path, file.tell() + length)
    return streamed_array(file, shape, dtype, path)
