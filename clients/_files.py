"""Writes a stream of images to a file, whole or not at all."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ._types import ImageBatch

SUFFIXES = (".png", ".npz", ".npy")
PNG_IMAGES_AT_MOST = 10_000
_GRID_GAP = 2
_GRID_GREY = 90


def write_batches(batches: Iterable[ImageBatch], path: Path) -> ImageBatch:
    """Write all images of a stream; returns its last batch. Raises OSError, and leaves no partial file.

    .png is a grid, .npy uint8 [n, channels, height, width], and .npz the packed images with shape,
    seed, first index, model and revision.
    """
    kept = list(batches)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            if path.suffix == ".png":
                make_grid(np.concatenate([batch.images for batch in kept])).save(file, "PNG")
            elif path.suffix == ".npy":
                np.save(file, np.concatenate([batch.images for batch in kept]))
            else:
                _write_npz(kept, file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return kept[-1]


def make_grid(images: npt.NDArray[np.uint8]) -> Image.Image:
    """Images uint8 [n, c, h, w] of 0 and 1 in a square grid; colour for 3 channels, other ones side by side."""
    count, channels, height, width = images.shape
    if channels == 3:
        tiles = images.transpose(0, 2, 3, 1)  # [n, h, w, 3]
    else:
        tiles = images.transpose(0, 2, 1, 3).reshape(count, height, channels * width, 1)
    columns = math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    height, width, depth = tiles.shape[1] + _GRID_GAP, tiles.shape[2] + _GRID_GAP, tiles.shape[3]
    canvas = np.full((rows * height + _GRID_GAP, columns * width + _GRID_GAP, depth), _GRID_GREY, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = _GRID_GAP + i // columns * height, _GRID_GAP + i % columns * width
        canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile * 255
    return Image.fromarray(canvas if depth == 3 else canvas[:, :, 0])


def _write_npz(batches: list[ImageBatch], file: object) -> None:
    first = batches[0]
    np.savez_compressed(
        file,  # type: ignore[arg-type]
        packed_images=np.concatenate([batch.packed_images for batch in batches]),
        image_shape=np.array(first.image_shape),
        seed=np.array(first.seed),
        first_index=np.array(first.first_index),
        model=np.array(first.model),
        revision=np.array(first.revision),
    )
