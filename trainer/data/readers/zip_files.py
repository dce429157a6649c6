"""Images in zip archives."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ...config.images import ImageOptions
from .image_files import ImageFiles, is_hidden
from .limits import check_archive
from .source import first_line

_ENTRY_BYTES_AT_MOST = 256 * 2**20  # of one image file, which is read into memory as a whole


def open_zip(path: Path, archive: zipfile.ZipFile, options: ImageOptions) -> ImageFiles:
    """The images of a zip. Raises DataError if it is a bomb, or has names that lead out of it."""
    check_archive(archive, path)
    names = [name for name in archive.namelist() if not name.endswith("/") and not is_hidden(name)]

    def read(name: str) -> bytes:
        if archive.getinfo(name).file_size > _ENTRY_BYTES_AT_MOST:
            raise ValueError(f"it unpacks to more than {_ENTRY_BYTES_AT_MOST // 2**20} MiB")
        try:
            return archive.read(name)
        except Exception as error:  # encrypted, or broken in any way
            raise ValueError(first_line(error)) from error

    return ImageFiles(names, read, options, path)
