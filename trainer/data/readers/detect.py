"""The reader for a file or folder, chosen by its content, not its name."""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from ...common.errors import DataError
from ...config.images import ImageOptions
from .array_files import open_hdf, open_idx, open_mat, open_npy, open_npz
from .image_files import ParquetImages, open_folder, open_zip
from .source import ImageSource, reading

_KNOWN = ".npy, .npz, idx, idx.gz, .mat, .h5, .parquet, a zip of images, or a folder of images"


@contextmanager
def open_images(path: Path, options: ImageOptions) -> Iterator[ImageSource]:
    """The images of a file or folder, open while entered. Raises DataError if bgan cannot read it."""
    with ExitStack() as files:
        yield open_folder(path, options) if path.is_dir() else _open_file(path, options, files)


def _open_file(path: Path, options: ImageOptions, files: ExitStack) -> ImageSource:
    try:
        with path.open("rb") as file:
            start = file.read(128)
    except FileNotFoundError:
        raise DataError(f"there is no file or folder {path}") from None
    for signature, open_file in _READERS.items():
        if start.startswith(signature):
            return open_file(path, options, files)
    what = "is empty" if not start else "is no file of images that bgan reads"
    raise DataError(f"{path} {what}: {_KNOWN}")


def _open_zip(path: Path, options: ImageOptions, files: ExitStack) -> ImageSource:
    with reading(path, zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        archive = files.enter_context(zipfile.ZipFile(path))
    names = archive.namelist()
    if names and all(name.endswith(".npy") for name in names):
        return open_npz(path, archive, options, files)
    return open_zip(path, archive, options)


_READERS: dict[bytes, Callable[[Path, ImageOptions, ExitStack], ImageSource]] = {
    b"\x93NUMPY": open_npy,
    b"PK": _open_zip,
    b"\x89HDF\r\n\x1a\n": open_hdf,
    b"MATLAB 7.3": partial(open_hdf, is_matlab=True),
    b"MATLAB 5.0": open_mat,
    b"PAR1": ParquetImages,
    b"\x1f\x8b": open_idx,
    b"\0\0": open_idx,
}
