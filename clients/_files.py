"""Writes a stream of images to a file, whole or not at all."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ._types import ImageBatch

SUFFIXES = (".png", ".npz", ".npy")
PNG_IMAGES_AT_MOST = 10_000
_GRID_GAP = 2
_GRID_GREY = 90


def write_batches(batches: Iterable[ImageBatch], path: Path, *, image_count: int) -> ImageBatch:
    """Write the `image_count` images of a stream; returns its last batch. Raises OSError.

    A file is written whole or not at all. .png is a grid, .npy uint8 [n, channels, height, width], and
    .npz the packed images with shape, seed, first index, model and revision, and their labels where they are of
    classes. But for a grid, memory does not grow with the count, or by 4 bytes an image for labels.
    """
    write = {".png": _write_png, ".npy": _write_npy, ".npz": _write_npz}[path.suffix]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            last = write(iter(batches), file, image_count)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return last


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


def _write_png(batches: Iterator[ImageBatch], file: IO[bytes], image_count: int) -> ImageBatch:
    kept = list(batches)
    make_grid(np.concatenate([batch.images for batch in kept])).save(file, "PNG")
    return kept[-1]


def _write_npy(batches: Iterator[ImageBatch], file: IO[bytes], image_count: int) -> ImageBatch:
    first = next(batches)
    _write_header(file, (image_count, *first.image_shape))
    for batch in chain((first,), batches):
        file.write(batch.images.data)
    return batch


def _write_npz(batches: Iterator[ImageBatch], file: IO[bytes], image_count: int) -> ImageBatch:
    """As numpy's savez_compressed, but for the packed images, which are written as they come."""
    first = next(batches)
    labels: list[npt.NDArray[np.int32]] = []
    origin: dict[str, Any] = {
        "image_shape": first.image_shape,
        "seed": first.seed,
        "first_index": first.first_index,
        "model": first.model,
        "revision": first.revision,
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("packed_images.npy", "w", force_zip64=True) as member:
            _write_header(member, (image_count, first.packed_images.shape[1]))
            for batch in chain((first,), batches):
                member.write(batch.packed_images.data)
                if batch.labels is not None:
                    labels.append(batch.labels)
        if labels:
            origin["labels"] = np.concatenate(labels)
        for name, value in origin.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.array(value))
    return batch


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    """What a .npy file of uint8 begins with; its rows follow."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
