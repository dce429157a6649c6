"""Pictures of images, side by side. Shapes: N images, C channels, H rows, W columns."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GRID_COLUMNS = 8
_GAP = 2
_BACKGROUND = 0.35


def side_by_side(images: NDArray[Any]) -> NDArray[Any]:
    """The channels of [N, C, H, W] in a row: [N, H, C * W]."""
    count, channels, height, width = images.shape
    return images.transpose(0, 2, 1, 3).reshape(count, height, channels * width)


def tiled(pictures: NDArray[Any], *, columns: int, gap: int, background: float) -> NDArray[Any]:
    """Pictures [N, H, W] or [N, H, W, 3] in rows of so many columns, `gap` pixels of `background` around each."""
    count, height, width, *colours = pictures.shape
    rows = -(-count // columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, *colours)
    tiles = np.full(shape, background, pictures.dtype)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        tiles[top : top + height, left : left + width] = picture
    return tiles


def save_grid(images: NDArray[Any], path: Path, *, columns: int = GRID_COLUMNS) -> None:
    """Write images [N, C, H, W] in [0, 1] as a PNG; three channels are colours, others lie side by side."""
    pictures = images.transpose(0, 2, 3, 1) if images.shape[1] == 3 else side_by_side(images)
    grid = tiled(pictures.astype(np.float32), columns=min(columns, len(images)), gap=_GAP, background=_BACKGROUND)
    Image.fromarray(np.rint(grid * 255).astype(np.uint8)).save(path)
