"""Pictures of many images: grids, written row by row, in flat memory."""

import math
import struct
import zlib

import numpy as np
import numpy.typing as npt

MAX_COLUMNS = 100
_MAX_ROW_PIXELS = 2**22  # of one row of a grid, which is held in memory
_MAX_SIDE = 2**31 - 1
_GAP = 2
_GREY = 90
_Bits = npt.NDArray[np.uint8]


class PngGrid:
    """One picture of images that come one after the other; three channels are colours, others lie side by side."""

    def __init__(self, image_shape: tuple[int, int, int], count: int, *, has_gaps: bool = True) -> None:
        """Raises ValueError where no picture is so large."""
        channels, height, width = image_shape
        if not (is_colour := channels == 3):
            width *= channels
        self._gap = _GAP if has_gaps else 0
        self._columns = _column_count(count, width * height)
        rows = -(-count // self._columns)
        self._width = self._columns * (width + self._gap) + self._gap
        if (total := rows * (height + self._gap) + self._gap) > _MAX_SIDE:
            raise ValueError(f"a picture of {count} images is too large")
        # Colours of the palette: off and on for each channel, and the gap's.
        levels = [(0, 0, 0), (255, 255, 255)]
        if is_colour:
            levels = [(255 * (n >> 2), 255 * (n >> 1 & 1), 255 * (n & 1)) for n in range(8)]
        self._grey = len(levels)
        palette = bytes(value for colour in [*levels, (_GREY,) * 3] for value in colour)
        self._depth = 4 if is_colour else 2
        self._left = np.empty((0, *image_shape), np.uint8)  # images of a row that is not yet whole
        self._compressor = zlib.compressobj()
        size = struct.pack(">IIBBBBB", self._width, total, self._depth, 3, 0, 0, 0)
        self.head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", size) + _chunk(b"PLTE", palette)
        self._pending = self._compress(np.full((self._gap, self._width), self._grey, np.uint8))

    def add(self, images: _Bits) -> bytes:
        """The bytes of the rows that are whole now, with these images, uint8 [n, channels, height, width]."""
        images = np.concatenate([self._left, images])
        whole = len(images) // self._columns * self._columns
        self._left = images[whole:].copy()
        return self._chunk_of(self._compress(self._rows(images[:whole])) if whole else b"")

    def end(self) -> bytes:
        """The last row, and the end of the file."""
        last = self._compress(self._rows(self._left)) if len(self._left) else b""
        return self._chunk_of(last + self._compressor.flush()) + _chunk(b"IEND", b"")

    def _rows(self, images: _Bits) -> _Bits:
        """Rows of the picture, as places in the palette, of images that fill rows of the grid but the last."""
        count, channels, height, width = images.shape
        if channels == 3:
            tiles = images[:, 0] * 4 + images[:, 1] * 2 + images[:, 2]
        else:
            tiles = images.transpose(0, 2, 1, 3).reshape(count, height, channels * width)
        rows = -(-count // self._columns)
        # A tile has its gap to the left and below; above the first row lies another, and to the right of the last.
        gaps = (0, rows * self._columns - count), (0, self._gap), (self._gap, 0)
        tiles = np.pad(tiles, gaps, constant_values=self._grey)
        _, height, width = tiles.shape
        grid = tiles.reshape(rows, self._columns, height, width).swapaxes(1, 2).reshape(rows * height, -1)
        return np.pad(grid, ((0, 0), (0, self._gap)), constant_values=self._grey)

    def _compress(self, rows: _Bits) -> bytes:
        """Rows of the picture, packed, each after its filter's number, 0."""
        per_byte = 8 // self._depth
        padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % per_byte)))
        padded = padded.reshape(len(rows), padded.shape[1] // per_byte, per_byte)
        shifts = np.arange(per_byte - 1, -1, -1, dtype=np.uint8) * np.uint8(self._depth)
        packed = np.bitwise_or.reduce(padded << shifts, axis=2)
        return self._compressor.compress(np.pad(packed, ((0, 0), (1, 0))).tobytes())

    def _chunk_of(self, compressed: bytes) -> bytes:
        compressed, self._pending = self._pending + compressed, b""
        return _chunk(b"IDAT", compressed) if compressed else b""


def _column_count(count: int, pixels: int) -> int:
    return max(1, min(math.isqrt(count - 1) + 1, MAX_COLUMNS, _MAX_ROW_PIXELS // pixels))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
