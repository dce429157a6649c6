"""Images in zip archives."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ...config.images import ImageOptions
from .image_files import ImageFiles
from .limits import ENTRY_BYTES_AT_MOST, check_archive


def open_zip(path: Path, archive: zipfile.ZipFile, options: ImageOptions) -> ImageFiles:
    """The images of a zip. Raises DataError where it is a bomb, or has names that lead out of it."""
    check_archive(archive, path)
    names = [
        entry.filename for entry in archive.infolist() if not entry.is_dir() and not _is_hidden(entry.filename)
    ]

    def read(name: str) -> bytes:
        if archive.getinfo(name).file_size > ENTRY_BYTES_AT_MOST:
            raise ValueError(f"it unpacks to more than {ENTRY_BYTES_AT_MOST // 2**20} MiB")
        try:
            return archive.read(name)
        except Exception as error:  # encrypted, or broken in any way
            raise ValueError(next(iter(str(error).splitlines()), type(error).__name__)) from error

    return ImageFiles(names, read, options, path)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
