"""Zip files that are meant to do harm."""

from __future__ import annotations

import zipfile
from pathlib import PurePosixPath

from .errors import DataError

RATIO_AT_MOST = 500  # deflate can do 1,032; images of any use are far below
SMALL_BYTES = 64 * 2**20  # an archive that unpacks to no more is no bomb, whatever its ratio
ENTRY_BYTES_AT_MOST = 256 * 2**20  # of one image file, which is read into memory as a whole


def check_archive(archive: zipfile.ZipFile, path: object) -> None:
    """Raise DataError where an archive unpacks to far more than it is, or has names that lead out of a folder.

    Nothing is ever unpacked to disk; such names are refused all the same, for they are an attack on others.
    """
    entries = archive.infolist()
    for entry in entries:
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in entry.filename.partition("/")[0]:
            raise DataError(f"{path} is refused: its entry {entry.filename!r} leads out of the archive")
    unpacked = sum(entry.file_size for entry in entries)
    packed = max(1, sum(entry.compress_size for entry in entries))
    if unpacked > SMALL_BYTES and unpacked > RATIO_AT_MOST * min(packed, _length(archive)):
        raise DataError(
            f"{path} unpacks to {unpacked / 2**20:,.0f} MiB, more than {RATIO_AT_MOST} times what it takes: "
            "a zip bomb, or not worth training on; it is refused"
        )


def _length(archive: zipfile.ZipFile) -> int:
    """Bytes of the archive itself, which overlapping entries cannot lie about."""
    assert archive.fp is not None
    position = archive.fp.tell()
    length = archive.fp.seek(0, 2)
    archive.fp.seek(position)
    return max(1, length)
