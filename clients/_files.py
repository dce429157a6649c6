"""Pictures of images."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_GRID_GAP = 2
_GRID_GREY = 90


def make_grid(images: npt.NDArray[np.uint8]) -> Image.Image:
    """Images uint8 [n, c, h, w] of 0 and 1 in a square grid; 3 channels are colours, others lie side by side."""
    count, channels, height, width = images.shape
    if channels == 3:
        tiles = images.transpose(0, 2, 3, 1)  # [n, h, w, 3]
    else:
        tiles = images.transpose(0, 2, 1, 3).reshape(count, height, channels * width, 1)
    columns = math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    gap = (_GRID_GAP, 0)
    tiles = np.pad(tiles * 255, ((0, rows * columns - count), gap, gap, (0, 0)), constant_values=_GRID_GREY)
    _, height, width, depth = tiles.shape
    canvas = tiles.reshape(rows, columns, height, width, depth).swapaxes(1, 2)
    canvas = canvas.reshape(rows * height, columns * width, depth)
    canvas = np.pad(canvas, (gap[::-1], gap[::-1], (0, 0)), constant_values=_GRID_GREY)
    return Image.fromarray(canvas if depth == 3 else canvas[:, :, 0])


def cut_grid(canvas: npt.NDArray[Any]) -> npt.NDArray[np.uint8] | None:
    """The images, uint8 [n, 1 or 3, h, w] of 0 and 1, of a grid's pixels; None: `make_grid` made none such."""
    pixels = canvas.reshape(*canvas.shape[:2], -1)  # [rows, columns, 1 or 3]
    grey = (pixels == _GRID_GREY).all(2)
    height, width = _lines_between(grey.all(1)), _lines_between(grey.all(0))
    if not height or not width:
        return None
    rows, columns = len(pixels) // (_GRID_GAP + height), pixels.shape[1] // (_GRID_GAP + width)
    tiles = pixels[: rows * (_GRID_GAP + height), : columns * (_GRID_GAP + width)]
    tiles = tiles.reshape(rows, _GRID_GAP + height, columns, _GRID_GAP + width, -1)[:, _GRID_GAP:, :, _GRID_GAP:]
    tiles = tiles.transpose(0, 2, 4, 1, 3).reshape(rows * columns, -1, height, width)
    images = (tiles[(tiles != _GRID_GREY).any((1, 2, 3))] == 255).astype(np.uint8)  # the last row may end early
    return images if np.array_equal(np.asarray(make_grid(images)), canvas) else None


def _lines_between(is_grey: npt.NDArray[np.bool_]) -> int:
    """How many lines lie between the first two runs of grey ones; 0: there are none."""
    later = np.flatnonzero(is_grey[_GRID_GAP:])
    return int(later[0]) if len(later) and is_grey[:_GRID_GAP].all() else 0
