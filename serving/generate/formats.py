"""The formats of files of images: what an unfinished file holds, and how it becomes the finished one.

An unfinished file is a head and rows of one size, one an image, so it can be cut after any row and gone on with.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .atomic import move, whole_file, write_json

_CHUNK_BYTES = 1 << 20
_LABELS_AT_ONCE = 4096
_PACKING = (
    "one bit a pixel, 1 = on, row-major (channel, row, column), most significant bit first, "
    "each image padded with zeros to a whole byte"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the images of a file come from: all that decides their bits."""

    model: str
    """The model's name."""
    revision: str
    """The model's revision."""
    image_shape: tuple[int, int, int]
    """(channels, height, width) of each image."""
    seed: int
    """The seed of the stream."""
    first_index: int
    """The index of the first image in the stream."""
    count: int
    """How many images."""
    labels: tuple[int, ...] = ()
    """Image i is of the class labels[i mod their number]; none: classes are drawn, where the model has any."""

    @property
    def pixels(self) -> int:
        """Pixels of one image."""
        return math.prod(self.image_shape)

    @property
    def packed_bytes(self) -> int:
        """Bytes of one packed image."""
        return -(-self.pixels // 8)


Labels = Callable[[int, int], npt.NDArray[np.int64]]
"""Of a model of classes: first index and count, to the classes of those images of the stream, [count]."""


class Format(Protocol):
    """A format of image files, for the images of one origin."""

    head: bytes
    """What an unfinished file begins with."""
    row_bytes: int
    """Bytes of one image in an unfinished file."""

    def rows(self, packed_images: bytes) -> bytes | memoryview:
        """The bytes of some packed images in an unfinished file."""

    def finish(self, partial: Path, output: Path, labels: Labels | None, check: Callable[[], None]) -> None:
        """Make the finished file of a whole partial one, in flat memory. `check` is called often and may raise."""


class BitsFormat:
    """Packed images and nothing else; the sidecar OUTPUT.json says what a reader must know."""

    def __init__(self, origin: Origin) -> None:
        self.head = b""
        self.row_bytes = origin.packed_bytes
        self._origin = origin

    def rows(self, packed_images: bytes) -> bytes:
        """The packed images as they are."""
        return packed_images

    def finish(self, partial: Path, output: Path, labels: Labels | None, check: Callable[[], None]) -> None:
        """Write the sidecar, then give the partial file its name."""
        write_json(sidecar(output), self._description())
        move(partial, output)

    def _description(self) -> dict[str, object]:
        origin = self._origin
        return {
            "model": origin.model,
            "revision": origin.revision,
            "seed": origin.seed,
            "first_index": origin.first_index,
            "image_count": origin.count,
            **({"labels": list(origin.labels)} if origin.labels else {}),
            "image_shape": list(origin.image_shape),
            "bytes_per_image": self.row_bytes,
            "packing": _PACKING,
            "numpy": f"np.unpackbits(np.fromfile(path, np.uint8).reshape(-1, {self.row_bytes}), axis=1, "
            f"count={origin.pixels}).reshape(-1, {', '.join(map(str, origin.image_shape))})",
        }


class NpyFormat:
    """numpy's uint8 [n, channels, height, width] of 0 and 1, written in place."""

    def __init__(self, origin: Origin) -> None:
        self.head = _array_head((origin.count, *origin.image_shape))
        self.row_bytes = origin.pixels
        self._packed_bytes = origin.packed_bytes

    def rows(self, packed_images: bytes) -> memoryview:
        """One byte a pixel."""
        packed = np.frombuffer(packed_images, np.uint8).reshape(-1, self._packed_bytes)
        return np.unpackbits(packed, axis=1, count=self.row_bytes).data.cast("B")

    def finish(self, partial: Path, output: Path, labels: Labels | None, check: Callable[[], None]) -> None:
        """Give the partial file its name."""
        move(partial, output)


class NpzFormat:
    """The arrays that `bgan sample` writes, not compressed: packing has done the better part of it."""

    def __init__(self, origin: Origin) -> None:
        self.head = b""
        self.row_bytes = origin.packed_bytes
        self._origin = origin

    def rows(self, packed_images: bytes) -> bytes:
        """The packed images as they are."""
        return packed_images

    def finish(self, partial: Path, output: Path, labels: Labels | None, check: Callable[[], None]) -> None:
        """Copy the rows into an archive, which needs their checksum, and remove the partial file."""
        origin = self._origin
        with whole_file(output) as file, zipfile.ZipFile(file, "w") as archive:
            with partial.open("rb") as rows, archive.open("packed_images.npy", "w", force_zip64=True) as member:
                member.write(_array_head((origin.count, self.row_bytes)))
                while chunk := rows.read(_CHUNK_BYTES):
                    check()
                    member.write(chunk)
            if labels is not None:
                self._write_labels(archive, labels, check)
            for name in ("image_shape", "seed", "first_index", "model", "revision"):
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, np.array(getattr(origin, name)), allow_pickle=False)
        partial.unlink()

    def _write_labels(self, archive: zipfile.ZipFile, labels: Labels, check: Callable[[], None]) -> None:
        """The class of each image, int32 [n]."""
        origin = self._origin
        with archive.open("labels.npy", "w", force_zip64=True) as member:
            member.write(_array_head((origin.count,), "<i4"))
            for start in range(0, origin.count, _LABELS_AT_ONCE):
                check()
                count = min(_LABELS_AT_ONCE, origin.count - start)
                member.write(labels(origin.first_index + start, count).astype("<i4").tobytes())


FORMATS: dict[str, Callable[[Origin], Format]] = {
    ".npz": NpzFormat,
    ".npy": NpyFormat,
    ".bits": BitsFormat,
    ".bin": BitsFormat,
}
"""By the suffix of the finished file."""


def sidecar(output: Path) -> Path:
    """The file that describes a file of bits."""
    return output.with_name(f"{output.name}.json")


def outputs(output: Path) -> list[Path]:
    """All files that finishing `output` writes."""
    return [output, sidecar(output)] if FORMATS[output.suffix] is BitsFormat else [output]


def _array_head(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    """What numpy writes before the values of an array, of uint8 unless said otherwise."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": descr, "fortran_order": False, "shape": shape})
    return head.getvalue()
