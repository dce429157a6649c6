"""Pictures of images."""

import math

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
