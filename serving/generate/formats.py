"""The formats of files of images: what an unfinished file holds, and how it becomes the finished one.

An unfinished file is a head and rows of one size, one an image, so it can be cut after any row and resumed.
"""

import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config.whole_file import move, whole_file
from ..errors import GenerationError
from ..models.noise import ImageRange, Int64Array
from ..models.npy import PACKING, array_head, npz_description
from ..models.png import PngGrid

_CHUNK_BYTES = 1 << 20
_LABELS_AT_ONCE = 4096
_IMAGES_AT_ONCE = 256
MAX_PNG_IMAGES = 10_000
_MAX_PNG_PIXELS = 2**28


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSpec:
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

    @property
    def pixels(self) -> int:
        """Of one image."""
        return math.prod(self.image_shape)

    @property
    def packed_bytes(self) -> int:
        """Bytes of one packed image."""
        return -(-self.pixels // 8)


class Labels(NamedTuple):
    """The classes of a class-conditional model's images."""

    names: tuple[str, ...]
    """Of the classes 0, 1, ..."""
    draw: Callable[[ImageRange], Int64Array]
    """The classes [count] of some images of the stream."""


class Format:
    """A format of image files, for the images of one spec: here, packed images and nothing else."""

    def __init__(self, spec: GenerationSpec) -> None:
        self.spec = spec
        self.head = b""
        """What an unfinished file begins with."""
        self.row_bytes = spec.packed_bytes
        """Bytes of one image in an unfinished file."""

    def size(self, row_count: int) -> int:
        """Bytes of an unfinished file of so many images."""
        return len(self.head) + row_count * self.row_bytes

    def rows(self, packed_images: bytes) -> bytes | memoryview:
        """The bytes of some packed images in an unfinished file; may be called from several threads."""
        return packed_images

    def finish(self, partial: Path, output: Path, labels: Labels | None, check: Callable[[], None]) -> None:
        """Make the finished file of a whole partial one, in flat memory. `check` is called often and may raise."""
        move(partial, output)


class BitsFormat(Format):
    """Packed images; the sidecar OUTPUT.json says what a reader must know."""

    def finish(self, partial: Path, output: Path, labels: Labels | None, check: Callable[[], None]) -> None:
        """Write the sidecar, then give the partial file its name."""
        spec = self.spec
        description = {
            **{name: getattr(spec, name) for name in ("model", "revision", "seed", "first_index")},
            "image_count": spec.count,
            **({"labels": list(spec.labels)} if spec.labels else {}),
            **({"classes": list(labels.names)} if labels else {}),
            "image_shape": list(spec.image_shape),
            "bytes_per_image": self.row_bytes,
            "packing": PACKING,
            "numpy": f"np.unpackbits(np.fromfile(path, np.uint8).reshape(-1, {self.row_bytes}), axis=1, "
            f"count={spec.pixels}).reshape(-1, {', '.join(map(str, spec.image_shape))})",
        }
        write_json(sidecar(output), description)
        move(partial, output)


class NpyFormat(Format):
    """numpy's uint8 [n, channels, height, width] of 0 and 1, written in place."""

    def __init__(self, spec: GenerationSpec) -> None:
        super().__init__(spec)
        self.head = array_head((spec.count, *spec.image_shape))
        self.row_bytes = spec.pixels

    def rows(self, packed_images: bytes) -> memoryview:
        """One byte a pixel."""
        packed = np.frombuffer(packed_images, np.uint8).reshape(-1, self.spec.packed_bytes)
        return np.unpackbits(packed, axis=1, count=self.row_bytes).data.cast("B")


class NpzFormat(Format):
    """The arrays that `bgan sample` writes, not compressed: packing has done the better part of it."""

    def finish(self, partial: Path, output: Path, labels: Labels | None, check: Callable[[], None]) -> None:
        """Copy the rows into an archive, which needs their checksum, and remove the partial file."""
        spec = self.spec
        with whole_file(output) as file, zipfile.ZipFile(file, "w") as archive:
            with partial.open("rb") as rows, archive.open("packed_images.npy", "w", force_zip64=True) as member:
                member.write(array_head((spec.count, self.row_bytes)))
                while chunk := rows.read(_CHUNK_BYTES):
                    check()
                    member.write(chunk)
            if labels is not None:
                self._write_labels(archive, labels, check)
            arrays = {
                name: getattr(spec, name) for name in ("image_shape", "seed", "first_index", "model", "revision")
            }
            arrays["description"] = npz_description(spec.image_shape, has_classes=labels is not None)
            for name, value in arrays.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, np.array(value), allow_pickle=False)
        partial.unlink()

    def _write_labels(self, archive: zipfile.ZipFile, labels: Labels, check: Callable[[], None]) -> None:
        """The labels, int32 [n], and the names of the classes that they count, from 0."""
        spec = self.spec
        with archive.open("classes.npy", "w") as member:
            np.lib.format.write_array(member, np.array(labels.names), allow_pickle=False)
        with archive.open("labels.npy", "w", force_zip64=True) as member:
            member.write(array_head((spec.count,), "<i4"))
            images = ImageRange(spec.seed, spec.first_index, spec.count, spec.labels)
            for part in images.parts(_LABELS_AT_ONCE):
                check()
                member.write(labels.draw(part).astype("<i4").tobytes())


class PngFormat(Format):
    """A picture: all images in a grid."""

    def __init__(self, spec: GenerationSpec) -> None:
        super().__init__(spec)
        if spec.count > MAX_PNG_IMAGES or spec.count * spec.pixels > _MAX_PNG_PIXELS:
            size = "x".join(map(str, spec.image_shape))
            raise GenerationError(
                f"{spec.count} images of {size} are too many for one picture; write .npz, .npy or .bits"
            )

    def finish(self, partial: Path, output: Path, labels: Labels | None, check: Callable[[], None]) -> None:
        """Draw the grid, and remove the partial file."""
        spec, picture = self.spec, PngGrid(self.spec.image_shape, self.spec.count)
        with whole_file(output) as file, partial.open("rb") as rows:
            file.write(picture.head)
            while chunk := rows.read(_IMAGES_AT_ONCE * self.row_bytes):
                check()
                packed = np.frombuffer(chunk, np.uint8).reshape(-1, self.row_bytes)
                pixels = np.unpackbits(packed, axis=1, count=spec.pixels)
                file.write(picture.add(pixels.reshape(-1, *spec.image_shape)))
            file.write(picture.end())
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
