"""Writes a stream of images to a file, whole or not at all."""

import math
import os
import zipfile
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image

from ._types import ImageBatch

SUFFIXES = (".png", ".npz", ".npy")
MAX_PNG_IMAGES = 10_000
_GRID_GAP = 2
_GRID_GREY = 90


def write_batches(batches: Iterable[ImageBatch], path: Path, *, image_count: int) -> ImageBatch:
    """Write the `image_count` images of a stream; returns its last batch. Raises OSError.

    A file is written whole or not at all. .png is a grid, .npy uint8 [n, channels, height, width], and .npz the
    packed images with shape, seed, first index, model, revision and, from a class-conditional model, labels.
    Except for a grid, memory does not grow with the count, or by 4 bytes an image for labels.
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
    """Like numpy's savez_compressed, but writes the packed images as they arrive."""
    first = next(batches)
    labels: list[npt.NDArray[np.int32]] = []
    names = ("image_shape", "seed", "first_index", "model", "revision")
    arrays = {name: np.array(getattr(first, name)) for name in names}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("packed_images.npy", "w", force_zip64=True) as member:
            _write_header(member, (image_count, first.packed_images.shape[1]))
            for batch in chain((first,), batches):
                member.write(batch.packed_images.data)
                if batch.labels is not None:
                    labels.append(batch.labels)
        if labels:
            arrays["labels"] = np.concatenate(labels)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)
    return batch


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    """What a .npy file of uint8 begins with, before its rows."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
