"""Limits for compressed files that are meant to do harm."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from ...common.errors import DataError

_RATIO_AT_MOST = 500  # deflate can do 1,032; images of any use are far below
_SMALL_BYTES = 64 * 2**20  # a file that unpacks to no more is no bomb, whatever its ratio


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
