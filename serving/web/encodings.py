"""What a stream of images is in HTTP: the formats, each written as its messages arrive, in flat memory."""

import io
import json
import math
import zipfile
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from bgan.v1 import sampling_pb2 as pb

from ..errors import InvalidRequestError
from ..models.engine import Engine
from ..models.noise import ImageRange
from ..models.npy import array_head, npz_description
from ..models.png import PngGrid

_LABELS_AT_ONCE = 4096
_Bits = npt.NDArray[np.uint8]


class Encoding:
    """One format, for some images of a stream: what it begins with, what each message adds, and how it ends."""

    name: ClassVar[str]
    media_type: ClassVar[str]
    is_work: ClassVar[bool] = True
    """Whether a message takes long enough to be encoded in its caller's turn."""

    def __init__(self, engine: Engine, images: ImageRange) -> None:
        """Raises InvalidRequestError where the format cannot hold so many images."""
        self.engine, self.images = engine, images
        self.head = b""
        self.row_bytes: int | None = None
        """Bytes of each image after the head, if there is nothing else; None: parts of it mean nothing."""

    @property
    def length(self) -> int | None:
        """Bytes of all, if that is known."""
        return None if self.row_bytes is None else len(self.head) + self.images.count * self.row_bytes

    @property
    def image_bytes(self) -> int:
        """About the most bytes of one image."""
        return self.row_bytes or 8 * self.engine.packed_bytes

    def encode(self, response: pb.SampleBinaryImagesResponse) -> bytes:
        """What a message's images are."""
        raise NotImplementedError

    def end(self) -> Iterator[bytes]:
        """What comes after the last image."""
        yield from ()


class BitsEncoding(Encoding):
    """Packed images and nothing else."""

    name, media_type, is_work = "bits", "application/octet-stream", False

    def __init__(self, engine: Engine, images: ImageRange) -> None:
        super().__init__(engine, images)
        self.row_bytes = engine.packed_bytes

    def encode(self, response: pb.SampleBinaryImagesResponse) -> bytes:
        """The bits as they are."""
        return response.packed_images


class NpyEncoding(Encoding):
    """numpy's uint8 [n, channels, height, width] of 0 and 1."""

    name, media_type = "npy", "application/x-npy"

    def __init__(self, engine: Engine, images: ImageRange) -> None:
        super().__init__(engine, images)
        self.head = array_head((images.count, *engine.image_shape))
        self.row_bytes = math.prod(engine.image_shape)

    def encode(self, response: pb.SampleBinaryImagesResponse) -> bytes:
        """One byte a pixel."""
        return _pixels(response, self.engine).tobytes()


class NpzEncoding(Encoding):
    """The arrays that `bgan sample` writes, not compressed."""

    name, media_type = "npz", "application/x-npz"

    def __init__(self, engine: Engine, images: ImageRange) -> None:
        super().__init__(engine, images)
        self._sink = _Sink()
        self._archive = _Archive(self._sink, "w")
        self._member = self._archive.open("packed_images.npy", "w", force_zip64=True)
        self._member.write(array_head((images.count, engine.packed_bytes)))
        self.head = self._sink.take()

    def encode(self, response: pb.SampleBinaryImagesResponse) -> bytes:
        """Rows of the first array."""
        self._member.write(response.packed_images)
        return self._sink.take()

    def end(self) -> Iterator[bytes]:
        """The other arrays, of which the labels are as many as the images, and the archive's directory."""
        self._member.close()
        manifest = self.engine.manifest
        arrays: dict[str, Any] = {"classes": list(manifest.classes)} if manifest.classes else {}
        arrays |= {"image_shape": self.engine.image_shape, "seed": self.images.seed}
        arrays |= {
            "first_index": self.images.first_index,
            "model": manifest.name,
            "revision": self.engine.revision,
            "description": npz_description(self.engine.image_shape, has_classes=bool(manifest.classes)),
        }
        if manifest.classes:
            yield from self._labels()
        for name, values in arrays.items():
            with self._archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.array(values), allow_pickle=False)
        self._archive.close()
        yield self._sink.take()

    def _labels(self) -> Iterator[bytes]:
        """The labels, int32 [n]. They are drawn again, since they would not all fit into memory."""
        images = self.images
        with self._archive.open("labels.npy", "w", force_zip64=True) as member:
            member.write(array_head((images.count,), "<i4"))
            for part in images.parts(_LABELS_AT_ONCE):
                member.write(self.engine.noise.draw_labels(part).astype("<i4").tobytes())
                yield self._sink.take()


class JsonEncoding(Encoding):
    """One object, whose 64-bit integers are strings, as in proto3 JSON."""

    name, media_type = "json", "application/json"

    def __init__(self, engine: Engine, images: ImageRange) -> None:
        super().__init__(engine, images)
        channels, height, width = engine.image_shape
        about: dict[str, Any] = {
            "model": engine.manifest.name,
            "revision": engine.revision,
            "seed": str(images.seed),
            "first_index": str(images.first_index),
            "image_count": str(images.count),
            "image_shape": {"channels": channels, "height": height, "width": width},
            **({"classes": list(engine.manifest.classes)} if engine.class_count else {}),
        }
        self.head = json.dumps(about)[:-1].encode() + b', "images": [\n'
        zeros = np.zeros(engine.image_shape, np.uint8).tolist()
        self._template = np.frombuffer(json.dumps(zeros, separators=(",", ":")).encode(), np.uint8)
        self._digits = np.flatnonzero(self._template == ord("0"))

    @property
    def image_bytes(self) -> int:
        """About the bytes of one image."""
        return len(self._template) + 64

    def encode(self, response: pb.SampleBinaryImagesResponse) -> bytes:
        """An object for each image."""
        pixels = _pixels(response, self.engine).reshape(response.image_count, -1)
        texts = np.tile(self._template, (len(pixels), 1))
        texts[:, self._digits] = pixels + ord("0")
        parts: list[bytes] = []
        for number, text in enumerate(texts):
            index = response.first_index + number
            label = f', "label": {response.labels[number]}' if response.labels else ""
            comma = "" if index == self.images.first_index else ",\n"
            parts += [f'{comma}{{"index": "{index}"{label}, "pixels": '.encode(), text.tobytes(), b"}"]
        return b"".join(parts)

    def end(self) -> Iterator[bytes]:
        """The brackets that are open."""
        yield b"\n]}\n"


class PngEncoding(Encoding):
    """One image, or a grid of them with gaps; three channels are colours, others lie side by side."""

    name, media_type = "png", "image/png"

    def __init__(self, engine: Engine, images: ImageRange) -> None:
        super().__init__(engine, images)
        try:
            self._picture = PngGrid(engine.image_shape, images.count, has_gaps=images.count > 1)
        except ValueError as error:
            raise InvalidRequestError(
                {"image_count": "is more than one picture holds; ask for fewer, or for npy"}
            ) from error
        self.head = self._picture.head

    @property
    def image_bytes(self) -> int:
        """About the most bytes of one image, as one byte a pixel."""
        return math.prod(self.engine.image_shape)

    def encode(self, response: pb.SampleBinaryImagesResponse) -> bytes:
        """The rows of the grid that are whole now."""
        return self._picture.add(_pixels(response, self.engine))

    def end(self) -> Iterator[bytes]:
        """The last row, and the end of the file."""
        yield self._picture.end()


ENCODINGS: dict[str, type[Encoding]] = {
    each.name: each for each in (PngEncoding, NpzEncoding, NpyEncoding, BitsEncoding, JsonEncoding)
}
"""By their names; the first is what whoever takes anything gets."""


class _Sink(io.RawIOBase):
    """Takes what an archive writes, which then cannot go back in it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        """What was written since this was last asked."""
        taken, self._parts = b"".join(self._parts), []
        return taken


class _Archive(zipfile.ZipFile):
    """One that may be given up before its end."""

    def __del__(self) -> None:
        pass


def _pixels(response: pb.SampleBinaryImagesResponse, engine: Engine) -> _Bits:
    """The images of a message, [n, channels, height, width]."""
    packed = np.frombuffer(response.packed_images, np.uint8).reshape(response.image_count, -1)
    return np.unpackbits(packed, axis=1, count=math.prod(engine.image_shape)).reshape(-1, *engine.image_shape)
