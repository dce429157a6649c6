"""The reader for a file or folder, chosen by its content, not its name."""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from ...common.errors import DataError
from ...config.images import ImageOptions
from .array_files import IDX_TYPES, open_hdf, open_idx, open_mat, open_npy, open_npz
from .image_files import is_image, open_folder, open_zip
from .listing import list_folder, list_zip
from .other_files import START_BYTES, from_torch, image_suffix, is_table, named, unzipped, zipped
from .own import open_own
from .parquet import ParquetImages
from .source import ImageSource, check_archive, not_readable, reading
from .text_files import open_text

_KNOWN = ".npy, .npz, idx, idx.gz, .amat, .mat, .h5, .parquet, a zip of images, or a folder of images"


@contextmanager
def open_images(path: Path, options: ImageOptions) -> Iterator[ImageSource]:
    """The images of a file or folder, open while entered. Raises DataError if bgan cannot read it."""
    if options.reader is not None:
        yield open_own(path, options, options.reader)
        return
    with ExitStack() as files:
        yield _open_folder(path, options) if path.is_dir() else _open_file(path, options, files)


def _open_folder(path: Path, options: ImageOptions) -> ImageSource:
    listing = list_folder(path)
    shards = sorted(name for name in listing.names if name.lower().endswith(".parquet"))
    if not shards or any(map(is_image, listing.names)):
        return open_folder(path, listing, options)
    source = ParquetImages([path / name for name in shards], options, path)
    if others := len(listing.names) - len(shards):
        listing.left_out["files that are no parquet"] = others
    source.notes += listing.notes
    return source


def _open_file(path: Path, options: ImageOptions, files: ExitStack) -> ImageSource:
    if path.exists() and not path.is_file():  # a pipe may never be written to, and is read but once
        raise DataError(f"{path} is a pipe, socket or device; write what comes out of it to a file, and name that")
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
    except FileNotFoundError:
        gone = f"{path} is a link to a file that is gone"
        raise DataError(gone if path.is_symlink() else f"there is no file or folder {path}") from None
    except OSError as error:
        raise not_readable(path, error.strerror or error) from error
    for signature, open_file in _READERS.items():
        if start.startswith(signature) or (open_file is open_mat and path.suffix.lower() == ".mat"):
            return open_file(path, options, files)
    if is_table(start):
        return open_text(path, options, files)
    if own := image_suffix(start):
        raise DataError(f"{path} is one image ({own}); a set is a folder of them: name {path.parent}")
    if what := named(start, path):
        raise DataError(f"{path} is {what}")
    raise DataError(f"{path} {'is no file of images that bgan reads' if start else 'is empty'}: {_KNOWN}")


def _open_zip(path: Path, options: ImageOptions, files: ExitStack) -> ImageSource:
    with reading(path, zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        archive = files.enter_context(zipfile.ZipFile(path))
    check_archive(archive, path)
    listing, entries = list_zip(archive)
    if any(name.endswith("/data.pkl") for name in entries):
        raise DataError(f"{path} is {from_torch(path)}")
    if any(name.endswith(".npy") for name in entries) and not any(map(is_image, entries)):
        return open_npz(path, archive, listing, entries, options, files)
    return open_zip(path, archive, listing, entries, options)


def _open_gzip(path: Path, options: ImageOptions, files: ExitStack) -> ImageSource:
    with path.open("rb") as file:
        start = file.read(START_BYTES)
    if (what := zipped(start)) is not None:
        raise DataError(f"{path} is {what}")
    return (open_text if is_table(unzipped(start)) else open_idx)(path, options, files)


def _open_parquet(path: Path, options: ImageOptions, files: ExitStack) -> ImageSource:
    return ParquetImages([path], options, path)


_READERS: dict[bytes, Callable[[Path, ImageOptions, ExitStack], ImageSource]] = {
    b"\x93NUMPY": open_npy,
    b"PK": _open_zip,
    b"\x89HDF\r\n\x1a\n": open_hdf,
    b"MATLAB 7.3": partial(open_hdf, is_matlab=True),
    b"MATLAB 5.0": open_mat,
    b"PAR1": _open_parquet,
    b"\x1f\x8b": _open_gzip,
    **{bytes((0, 0, code)): open_idx for code in IDX_TYPES},
}
