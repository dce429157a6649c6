"""Images as a file holds them, before they are made binary, and what a file is refused for."""

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import ConfigError, DataError
from ...common.text import first_line
from ...config.images import ImageOptions
from ...config.setting import option

LEAST_ON = 0.001  # share of pixels that are on: with less, or with less off, there is nothing to learn
_NAMED_AT_MOST = 3
_RATIO_AT_MOST = 500  # deflate can do 1,032; images of any use are far below
_SMALL_BYTES = 64 * 2**20  # a file that unpacks to no more is no bomb, whatever its ratio


@dataclass(frozen=True, slots=True)
class RawImages:
    """Some images of one shape, in the order of the file."""

    pixels: NDArray[Any]
    """[n, C, H, W] of bool, integers or floats."""
    labels: NDArray[np.int64] | None
    """[n], as the file has them; None for images without labels."""
    first: int = 0
    """The index of the first of them in the source."""
    file: str | None = None
    """The name of a single image, if it has one."""

    def name(self, row: int = 0) -> str:
        """What messages call one of them."""
        return f"image {self.first + row}" if self.file is None else self.file


@dataclass(slots=True)
class BadImages:
    """How many images cannot be used, and the first few with their reasons."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def note(self, name: str, reason: str, *, count: int = 1) -> None:
        """Count one more, or several with the same reason."""
        self.count += count
        if len(self.first) < _NAMED_AT_MOST:
            self.first.append(f"{printable(name)} ({reason})")

    @property
    def text(self) -> str:
        """How many and which, on one line."""
        more = ", ..." if self.count > len(self.first) else ""
        return f"{self.count:,} of them cannot be used: {', '.join(self.first)}{more}"


class ImageSource(ABC):
    """A file or folder of images."""

    count: int
    """Images in it, good and bad."""
    classes: tuple[str, ...] | None = None
    """The names of labels 0, 1, ...; None if the labels have no names."""
    groups: NDArray[np.int64] | None = None
    """A number for each of its images, [N], the same for those that belong together; None unless asked for."""
    notes: tuple[str, ...] = ()
    """What the user should know about how it is read."""

    @abstractmethod
    def chunks(self, bad: BadImages) -> Iterator[RawImages]:
        """All images in order, some at a time; those that cannot be read are noted as bad. Raises DataError."""


def refuse_options(options: ImageOptions, path: object, names: Iterable[str], why: str) -> None:
    """Raise ConfigError for an option that was given but means nothing for what is read."""
    for name in options.changed():
        if name in names:
            raise ConfigError(f"{option(name)} has no meaning for {path}: {why}")


def is_litter(name: str) -> bool:
    """Whether a file, or a folder that it lies in, is hidden, or added to an archive by macOS."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def printable(name: str) -> str:
    """A name that somebody gave, without what would steer a terminal: such characters as escapes."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)


def not_readable(path: object, reason: object) -> DataError:
    """The error for a file that is broken as a whole."""
    return DataError(f"{path} cannot be read ({first_line(reason)})")


@contextmanager
def reading(path: object, *errors: type[Exception]) -> Iterator[None]:
    """Turn these errors into that of a file that is broken as a whole."""
    try:
        yield
    except DataError:
        raise
    except errors as error:
        raise not_readable(path, error) from error


def check_length(path: Path, expected: int) -> None:
    """Raise DataError for a truncated file, before its first image is read."""
    length = path.stat().st_size
    if length < expected:
        raise not_readable(path, f"it is truncated: {length:,} bytes where {expected:,} belong")


def check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    """Raise DataError if an archive unpacks to far more than its size, or has names that lead out of a folder.

    Nothing is ever unpacked to disk; such names are refused all the same, as an attack on other programs.
    """
    entries = archive.infolist()
    for entry in entries:
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in entry.filename.partition("/")[0]:
            raise DataError(f"{path} is refused: its entry {entry.filename!r} leads out of the archive")
    check_ratio(sum(entry.file_size for entry in entries), path)


def check_ratio(unpacked: int, path: Path) -> None:
    """Raise DataError if a file unpacks to far more bytes than its size, which overlapping entries do too."""
    if unpacked > max(_SMALL_BYTES, _RATIO_AT_MOST * path.stat().st_size):
        size = f"{unpacked / 2**20:,.0f} MiB, more than {_RATIO_AT_MOST} times its size"
        raise DataError(f"{path} is refused: it unpacks to {size}, like a zip bomb")
