"""Tables of numbers as text, an image a line, as Larochelle's sets (.amat): read some lines at a time.

A label may stand behind the pixels of each line, as in his mnist_basic; his binarized_mnist has none.
"""

import gzip
import math
import zlib
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from ...common.errors import DataError
from ...config.images import ImageOptions
from .arrays import ArraySource, row_array, sliced_array
from .layout import lengths_text, side_of
from .source import check_ratio, not_readable, reading, refuse_options

_LINE_BYTES = 2**24  # of the longest line that is read
_DTYPE = np.dtype(np.float32)

Line = tuple[int, bytes]
"""Its number, from 1, and its text."""


def open_text(path: Path, options: ImageOptions, files: ExitStack) -> ArraySource:
    """The images of a table of numbers, which may be gzipped, with labels where its last column has them.

    Raises DataError if a line is not as long as the first, or holds what is no number.
    """
    refuse_options(options, path, ("channels",), "channels are taken from image files")
    refuse_options(options, path, ("key", "labels_key"), "a table of numbers has no names")
    columns, last = _columns(path)
    pixels = _pixels(columns, last, options.row_lengths)
    lines = _lines(path, files)

    def rows(count: int) -> NDArray[Any]:
        part = _numbers(list(islice(lines, count)), path)
        if part.shape != (count, columns):
            raise not_readable(path, "it has changed while it was read")
        return part[:, :pixels]

    images = row_array(rows, (len(last), pixels), _DTYPE)
    if pixels == columns:
        return ArraySource(images, options, path)
    source = ArraySource(images, options, path, labels={"the last column": sliced_array(last)})
    shape = lengths_text(options.row_lengths or (side_of(pixels),) * 2)
    note = (
        f"the last of {columns} columns is taken as labels, the others as {shape}; if it is of pixels too, say how"
    )
    source.notes += (f"{note} they are unfolded with --row-shape",)
    return source


def _columns(path: Path) -> tuple[int, NDArray[np.float64]]:
    """How many numbers each line has, and the last of each."""
    columns, length, last = 0, 0, array("d")
    with ExitStack() as files:
        for number, line in _lines(path, files):
            values = line.split()
            columns = columns or len(values)
            if len(values) != columns:
                raise DataError(
                    f"{path}: line {number} has {len(values):,} values, where the first has {columns:,}"
                )
            last.append(_number(values[-1], number, path))
            length += len(line)
            check_ratio(length, path)
    return columns, np.frombuffer(last, np.float64)


def _pixels(columns: int, last: NDArray[np.float64], row: tuple[int, ...] | None) -> int:
    """How many columns are pixels: all but a last one of whole numbers where the others alone make an image."""
    if row is not None:
        return columns - (math.prod(row) == columns - 1)
    return columns - bool(side_of(columns - 1) and (last == np.round(last)).all())


def _lines(path: Path, files: ExitStack) -> Iterator[Line]:
    """The lines that are not blank."""
    plain: IO[bytes] = files.enter_context(path.open("rb"))
    is_zipped = plain.read(2) == b"\x1f\x8b"
    plain.seek(0)
    file = cast(IO[bytes], gzip.GzipFile(fileobj=plain)) if is_zipped else plain
    number = 0
    with reading(path, OSError, EOFError, zlib.error):
        while line := file.readline(_LINE_BYTES):
            number += 1
            if len(line) == _LINE_BYTES:
                raise DataError(f"{path}: line {number} is longer than {_LINE_BYTES / 2**20:.0f} MiB")
            if not line.isspace():
                yield number, line


def _numbers(lines: list[Line], path: Path) -> NDArray[Any]:
    try:
        return np.loadtxt([line.decode("latin-1") for _, line in lines], _DTYPE, comments=None, ndmin=2)
    except ValueError as error:
        for number, line in lines:
            for value in line.split():
                _number(value, number, path)
        raise DataError(f"{path}: {error}") from error


def _number(value: bytes, line: int, path: Path) -> float:
    try:
        return float(value)
    except ValueError:
        shown = repr(value.decode("latin-1"))
        raise DataError(f"{path}: line {line} holds {shown}, which is no number") from None
