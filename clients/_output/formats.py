"""The formats of files of images, byte for byte those of `bgan generate`, but for pictures, which show the same.

An unfinished file is a head and rows of one size, one an image, so it can be cut after any row and resumed.
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .._description import PACKING, npz_description
from .._files import make_grid

MAX_PNG_IMAGES = 10_000
_MAX_PNG_PIXELS = 2**28
_CHUNK_BYTES = 1 << 20


class OutputError(Exception):
    """A file cannot be written, or is there; the message says why and what to do."""

    exit_code = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPart:
    """All that decides the bits of a file's images."""

    model: str
    revision: str
    image_shape: tuple[int, int, int]
    """(channels, height, width)."""
    seed: int
    first_index: int
    count: int
    labels: tuple[int, ...] = ()
    """Image i is of the class labels[i mod their number]; none: classes are drawn, where the model has any."""
    classes: tuple[str, ...] = ()
    """The names of the model's classes."""

    @property
    def pixels(self) -> int:
        """Of one image."""
        return math.prod(self.image_shape)

    @property
    def packed_bytes(self) -> int:
        """Bytes of one packed image."""
        return -(-self.pixels // 8)


class Format:
    """A format, for some images of a stream: here, packed images and nothing else."""

    needs_labels = False
    """Whether the finished file has the class of each image."""

    def __init__(self, part: StreamPart) -> None:
        """Raises OutputError where the format cannot hold such images."""
        self.part = part
        self.head = b""
        """What an unfinished file begins with."""
        self.row_bytes = part.packed_bytes
        """Bytes of one image in an unfinished file."""

    def size(self, row_count: int) -> int:
        """Bytes of an unfinished file of so many images."""
        return len(self.head) + row_count * self.row_bytes

    def rows(self, packed: npt.NDArray[np.uint8]) -> bytes:
        """The bytes of some packed images, uint8 [n, packed_bytes], in an unfinished file."""
        return packed.tobytes()

    def finish(self, partial: Path, labels: Path, output: Path, check: Callable[[], None]) -> None:
        """Make the finished file of a whole partial one; `labels` has the class of each image, int32.

        `check` is called often, and may raise.
        """
        move(partial, output)


class BitsFormat(Format):
    """Packed images; the sidecar OUTPUT.json says what a reader must know."""

    def finish(self, partial: Path, labels: Path, output: Path, check: Callable[[], None]) -> None:
        """Write the sidecar, then give the partial file its name."""
        part, shape = self.part, ", ".join(map(str, self.part.image_shape))
        description = {
            **{name: getattr(part, name) for name in ("model", "revision", "seed", "first_index")},
            "image_count": part.count,
            **({"labels": list(part.labels)} if part.labels else {}),
            **({"classes": list(part.classes)} if part.classes else {}),
            "image_shape": list(part.image_shape),
            "bytes_per_image": self.row_bytes,
            "packing": PACKING,
            "numpy": f"np.unpackbits(np.fromfile(path, np.uint8).reshape(-1, {self.row_bytes}), axis=1, "
            f"count={part.pixels}).reshape(-1, {shape})",
        }
        write_json(sidecar(output), description)
        move(partial, output)


class NpyFormat(Format):
    """numpy's uint8 [n, channels, height, width] of 0 and 1, written in place."""

    def __init__(self, part: StreamPart) -> None:
        super().__init__(part)
        self.head = _array_head((part.count, *part.image_shape))
        self.row_bytes = part.pixels

    def rows(self, packed: npt.NDArray[np.uint8]) -> bytes:
        """One byte a pixel."""
        return np.unpackbits(packed, axis=1, count=self.row_bytes).tobytes()


class NpzFormat(Format):
    """The packed images, their labels where there are classes, and what they are; not compressed."""

    needs_labels = True

    def finish(self, partial: Path, labels: Path, output: Path, check: Callable[[], None]) -> None:
        """Copy the rows into an archive, which needs their checksum, and remove the partial file."""
        part = self.part
        with whole_file(output) as file, zipfile.ZipFile(file, "w") as archive:
            head = _array_head((part.count, self.row_bytes))
            _copy(partial, archive, "packed_images.npy", head, check)
            if part.classes:
                _write_array(archive, "classes", part.classes)
                _copy(labels, archive, "labels.npy", _array_head((part.count,), "<i4"), check)
            for name in ("image_shape", "seed", "first_index", "model", "revision"):
                _write_array(archive, name, getattr(part, name))
            description = npz_description(part.image_shape, has_classes=bool(part.classes))
            _write_array(archive, "description", description)
        partial.unlink()


class PngFormat(Format):
    """A picture: all images in a grid."""

    def __init__(self, part: StreamPart) -> None:
        super().__init__(part)
        if part.count > MAX_PNG_IMAGES or part.count * part.pixels > _MAX_PNG_PIXELS:
            size = "x".join(map(str, part.image_shape))
            raise OutputError(
                f"{part.count} images of {size} are too many for one picture; write .npz, .npy or .bits"
            )

    def finish(self, partial: Path, labels: Path, output: Path, check: Callable[[], None]) -> None:
        """Draw the grid, and remove the partial file."""
        packed = np.fromfile(partial, np.uint8).reshape(-1, self.row_bytes)
        pixels = np.unpackbits(packed, axis=1, count=self.part.pixels)
        with whole_file(output) as file:
            make_grid(pixels.reshape(-1, *self.part.image_shape)).save(file, "PNG")
        partial.unlink()


FORMATS: dict[str, type[Format]] = {
    ".npz": NpzFormat,
    ".npy": NpyFormat,
    ".bits": BitsFormat,
    ".bin": BitsFormat,
    ".png": PngFormat,
}
"""By the suffix of the finished file."""


def sidecar(output: Path) -> Path:
    """The file that describes a file of bits."""
    return output.with_name(f"{output.name}.json")


def outputs(output: Path) -> list[Path]:
    """All files that finishing `output` writes."""
    return [output, sidecar(output)] if FORMATS[output.suffix] is BitsFormat else [output]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write readable JSON, whole. Raises OSError."""
    with whole_file(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes its name only when it is written and on disk. Raises OSError."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Give a file another name in its folder, replacing a file, whose permissions stay, and see it to disk."""
    with suppress(FileNotFoundError):
        source.chmod(stat.S_IMODE(target.stat().st_mode))
    source.replace(target)
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
        return
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _copy(source: Path, archive: zipfile.ZipFile, name: str, head: bytes, check: Callable[[], None]) -> None:
    with source.open("rb") as rows, archive.open(name, "w", force_zip64=True) as member:
        member.write(head)
        while chunk := rows.read(_CHUNK_BYTES):
            check()
            member.write(chunk)


def _write_array(archive: zipfile.ZipFile, name: str, values: npt.ArrayLike) -> None:
    with archive.open(f"{name}.npy", "w") as member:
        np.lib.format.write_array(member, np.array(values), allow_pickle=False)


def _array_head(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": descr, "fortran_order": False, "shape": shape})
    return head.getvalue()
