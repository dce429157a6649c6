"""Image files (PNG, BMP, GIF, JPEG, PBM, TIFF, WebP): one of them as pixels, and folders or zips of them.

Parquet files hold them too, as Hugging Face publishes them.

By the channels that are asked for, an image of any kind becomes
- grey: itself, 1 bit as 0 and 255, 16 bits as 0 to 65535; colours and palettes become their luma, and
  what is transparent is mixed with black, so that it is off;
- rgb: three channels of 0 to 255, mixed with black as well;
- alpha: its opacity alone, 255 without transparency.
An image of several frames or pages counts as bad: bgan cannot know which of them is meant.
"""

import io
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ...common.errors import DataError
from ...config.images import ImageOptions
from .arrays import LABEL_KEYS
from .source import BadImages, ImageSource, RawImages, check_archive, first_line, reading

SUFFIXES = frozenset({".png", ".bmp", ".gif", ".jpg", ".jpeg", ".pbm", ".pgm", ".ppm", ".tif", ".tiff", ".webp"})
# Pillow's other formats are rare, and one of them (EPS) runs another program.
_FORMATS = ("PNG", "BMP", "GIF", "JPEG", "PPM", "TIFF", "WEBP")
_ENTRY_BYTES_AT_MOST = 256 * 2**20  # of a file in a zip, which is read into memory as a whole
_PARQUET_ROWS = 256
_DEEP = {"I;16", "I;16B", "I;16L", "I;16N", "I", "F"}


class ImageFiles(ImageSource):
    """Image files of a folder or an archive, by name; the folder at the top of a name is its class."""

    def __init__(
        self, names: Sequence[str], read: Callable[[str], bytes], options: ImageOptions, path: Path
    ) -> None:
        self._names = sorted(name for name in names if Path(name).suffix.lower() in SUFFIXES)
        if not self._names:
            raise DataError(f"{path} has no image files; those of {', '.join(sorted(SUFFIXES))} are looked for")
        self._read = read
        self._options = options
        self.classes, self._labels = _classes(self._names)
        self.count = len(self._names)
        others = len(names) - self.count
        self.notes = (f"{others:,} other files are left out",) if others else ()

    def chunks(self, bad: BadImages) -> Iterator[RawImages]:
        """Every image by itself."""
        for index, name in enumerate(self._names):
            try:
                pixels = decode_image(self._read(name), self._options.channels)
            except ValueError as error:
                bad.note(name, str(error))
                continue
            labels = None if self._labels is None else self._labels[index : index + 1]
            yield RawImages(pixels[np.newaxis], labels, index, name)


def open_folder(path: Path, options: ImageOptions) -> ImageFiles:
    """The images of a folder and of all folders in it, without hidden files and links out of it."""
    root = path.resolve()
    files = [file for file in path.rglob("*") if file.is_file() and file.resolve().is_relative_to(root)]
    names = [file.relative_to(path).as_posix() for file in files]

    def read(name: str) -> bytes:
        try:
            return (path / name).read_bytes()
        except OSError as error:
            raise ValueError(error.strerror or str(error)) from error

    return ImageFiles([name for name in names if not _is_hidden(name)], read, options, path)


def open_zip(path: Path, archive: zipfile.ZipFile, options: ImageOptions) -> ImageFiles:
    """The images of a zip. Raises DataError if it is a bomb, or has names that lead out of it."""
    check_archive(archive, path)
    names = [name for name in archive.namelist() if not name.endswith("/") and not _is_hidden(name)]

    def read(name: str) -> bytes:
        if archive.getinfo(name).file_size > _ENTRY_BYTES_AT_MOST:
            raise ValueError(f"it unpacks to more than {_ENTRY_BYTES_AT_MOST // 2**20} MiB")
        try:
            return archive.read(name)
        except Exception as error:  # encrypted, or broken in any way
            raise ValueError(first_line(error)) from error

    return ImageFiles(names, read, options, path)


class ParquetImages(ImageSource):
    """The encoded images in one column of a parquet file."""

    def __init__(self, path: Path, options: ImageOptions, files: ExitStack) -> None:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        with reading(path, OSError, ArrowException):
            self._file = files.enter_context(ParquetFile(path))
        self._path = path
        self._options = options
        schema = self._file.schema_arrow
        self._column = self._chosen_column(schema)
        self._labels = options.labels_key or next((name for name in LABEL_KEYS if name in schema.names), None)
        if self._labels is not None and self._labels not in schema.names:
            raise DataError(f"{path} has no column {self._labels!r}; it has {', '.join(schema.names)}")
        self.count = self._file.metadata.num_rows

    def _chosen_column(self, schema: Any) -> str:
        from pyarrow.types import is_binary, is_large_binary, is_struct

        def holds_bytes(kind: Any) -> bool:
            if is_struct(kind):
                return any(field.name == "bytes" and holds_bytes(field.type) for field in kind)
            return bool(is_binary(kind) or is_large_binary(kind))

        columns: list[str] = [field.name for field in schema if holds_bytes(field.type)]
        wanted = self._options.key
        if (wanted is None and len(columns) == 1) or wanted in columns:
            return wanted or columns[0]
        listed = f"columns that hold bytes: {', '.join(columns) or 'none'}"
        if wanted is None:
            raise DataError(f"{self._path}: {listed}; name the column of image bytes with --key")
        raise DataError(f"{self._path} has no column {wanted!r} of image bytes; {listed}")

    def chunks(self, bad: BadImages) -> Iterator[RawImages]:
        """Every image by itself."""
        from pyarrow import ArrowException

        columns = [self._column] + ([] if self._labels is None else [self._labels])
        with reading(self._path, OSError, ArrowException):
            batches = self._file.iter_batches(_PARQUET_ROWS, columns=columns)
            for row, record in enumerate(record for batch in batches for record in batch.to_pylist()):
                try:
                    yield self._decoded(record, row)
                except ValueError as error:
                    bad.note(f"row {row}", str(error))

    def _decoded(self, record: dict[str, Any], row: int) -> RawImages:
        cell = record[self._column]
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        pixels = decode_image(content or b"", self._options.channels)
        label = None if self._labels is None else record[self._labels]
        if self._labels is not None and not isinstance(label, int):
            raise ValueError(f"its label is {label!r}, not an integer")
        labels = None if label is None else np.array([label], np.int64)
        return RawImages(pixels[np.newaxis], labels, row, f"row {row}")


def _is_hidden(name: str) -> bool:
    """Whether a file, or a folder that it lies in, is hidden, or added to an archive by macOS."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def decode_image(content: bytes, channels: str) -> NDArray[Any]:
    """The pixels [C, H, W] of one image file. Raises ValueError with the reason if it has none."""
    if not content:
        raise ValueError("it is empty")
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
            frames = getattr(image, "n_frames", 1)
            if frames == 1:
                return _pixels(image, channels)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError("it has more pixels than Pillow considers safe") from error
    except UnidentifiedImageError as error:
        raise ValueError("it is no image") from error
    except Exception as error:  # Pillow raises whatever it stumbles on
        raise ValueError(first_line(error)) from error
    raise ValueError(f"it has {frames} frames; save them as files of their own")


def _pixels(image: Image.Image, channels: str) -> NDArray[Any]:
    if channels == "alpha":
        return _planes(image.convert("RGBA").getchannel("A"))
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "black")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    if channels == "rgb":
        return _planes(image.convert("RGB"))
    return _planes(image if image.mode in _DEEP else image.convert("L"))


def _planes(image: Image.Image) -> NDArray[Any]:
    """[H, W] or [H, W, C] pixels as [C, H, W]."""
    pixels = np.asarray(image)
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _classes(names: Sequence[str]) -> tuple[tuple[str, ...] | None, NDArray[np.int64] | None]:
    """Names of classes and the label of each file: the folders below those that all files share.

    None if there is only one such folder, or if files lie beside the folders.
    """
    for depth in range(min(name.count("/") for name in names)):
        classes, labels = np.unique([name.split("/")[depth] for name in names], return_inverse=True)
        if len(classes) > 1:
            return tuple(classes.tolist()), labels.astype(np.int64)
    return None, None
