"""Compressed files that are meant to do harm."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from ...common.errors import DataError

RATIO_AT_MOST = 500  # deflate can do 1,032; images of any use are far below
SMALL_BYTES = 64 * 2**20  # a file that unpacks to no more is no bomb, whatever its ratio
ENTRY_BYTES_AT_MOST = 256 * 2**20  # of one image file, which is read into memory as a whole


def check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    """Raise DataError where an archive unpacks to far more than it is, or has names that lead out of a folder.

    Nothing is ever unpacked to disk; such names are refused all the same, for they are an attack on others.
    """
    entries = archive.infolist()
    for entry in entries:
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in entry.filename.partition("/")[0]:
            raise DataError(f"{path} is refused: its entry {entry.filename!r} leads out of the archive")
    check_ratio(sum(entry.file_size for entry in entries), path)


def check_ratio(unpacked: int, path: Path) -> None:
    """Raise DataError where a file unpacks to far more bytes than it is long, which overlapping entries do too."""
    if unpacked > max(SMALL_BYTES, RATIO_AT_MOST * path.stat().st_size):
        raise DataError(
            f"{path} is refused: it unpacks to {unpacked / 2**20:,.0f} MiB, more than {RATIO_AT_MOST} times what "
            "it takes, as bombs do"
        )
