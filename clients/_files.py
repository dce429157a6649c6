"""Writes a stream of images to a file, whole or not at all."""

import math
import os
import secrets
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ._description import npz_description
from ._types import ImageBatch

SUFFIXES = (".png", ".npz", ".npy")
MAX_PNG_IMAGES = 10_000
_MAX_PNG_PIXELS = 2**28
_GRID_GAP = 2
_GRID_GREY = 90

ClassNames = Callable[[], Sequence[str]]
"""Asks for the names of the classes of the model."""


def output_problem(path: Path) -> str | None:
    """Why a file cannot be written there; None: as far as can be known beforehand it can."""
    if path.suffix not in SUFFIXES:
        return f"must end in one of {', '.join(SUFFIXES)}"
    if path.is_dir():
        return "is a folder; name a file"
    if path.exists() and not path.is_file():
        return "is no regular file, and would be replaced by one"
    if _destination(path).is_symlink():
        return "is a link that leads in a circle"
    folder = _destination(path).parent
    if not folder.is_dir():
        return f"cannot be written: the folder {folder} does not exist"
    return None if os.access(folder, os.W_OK) else f"cannot be written: no permission for the folder {folder}"


def write_batches(
    batches: Iterable[ImageBatch], path: Path, *, image_count: int, classes: ClassNames = tuple
) -> ImageBatch:
    """Write the `image_count` images of a stream; returns its last batch.

    A file is written whole or not at all; where `path` is a link, its target is. .png is a grid, .npy uint8
    [n, channels, height, width], and .npz the packed images with shape, seed, first index, model, revision, a
    description of these and, from a class-conditional model, labels and `classes`, their names, which are asked
    for when the first batch has come.
    Except for a grid, memory does not grow with the count, or by 4 bytes an image for labels.

    Raises OSError that names `path`, and ValueError for other batches or more pixels than a picture holds.
    """
    write = {".png": _write_png, ".npy": _write_npy, ".npz": _write_npz}[path.suffix]
    named, path = path, _destination(path)
    temporary = path.with_name(f".bgan-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    checked = _checked(batches, image_count)
    first = next(
        checked
    )  # before there is a file: a call that fails at once leaves none, whatever ends the process
    try:
        with temporary.open("wb") as file:
            last = write(chain((first,), checked), file, image_count, classes)
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o7777)
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(named)) from error
    finally:
        temporary.unlink(missing_ok=True)
    return last


def _destination(path: Path) -> Path:
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _checked(batches: Iterable[ImageBatch], image_count: int) -> Iterator[ImageBatch]:
    """The batches. Raises ValueError where they are not `image_count` images of one stream."""
    previous, arrived = None, 0
    for batch in batches:
        if previous is not None and not previous.precedes(batch):
            raise ValueError("the batches are not of one stream, or not in order")
        previous, arrived = batch, arrived + len(batch)
        yield batch
    if arrived != image_count:
        raise ValueError(f"the stream has {arrived} images, not {image_count}")


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


def _write_png(
    batches: Iterator[ImageBatch], file: IO[bytes], image_count: int, classes: ClassNames
) -> ImageBatch:
    first = next(batches)
    if image_count * math.prod(first.image_shape) > _MAX_PNG_PIXELS:
        size = "x".join(map(str, first.image_shape))
        raise ValueError(f"{image_count} images of {size} are too many for one picture; write .npz or .npy")
    kept = [first, *batches]
    make_grid(np.concatenate([batch.images for batch in kept])).save(file, "PNG")
    return kept[-1]


def _write_npy(
    batches: Iterator[ImageBatch], file: IO[bytes], image_count: int, classes: ClassNames
) -> ImageBatch:
    first = next(batches)
    _write_header(file, (image_count, *first.image_shape))
    for batch in chain((first,), batches):
        file.write(batch.images.data)
    return batch


def _write_npz(
    batches: Iterator[ImageBatch], file: IO[bytes], image_count: int, classes: ClassNames
) -> ImageBatch:
    """Like numpy's savez_compressed, but writes the packed images as they arrive."""
    first = next(batches)
    labels: list[npt.NDArray[np.int32]] = []
    names = ("image_shape", "seed", "first_index", "model", "revision")
    arrays = {name: np.array(getattr(first, name)) for name in names}
    if first.labels is not None:
        arrays["classes"] = np.array(classes())
    arrays["description"] = np.array(npz_description(first.image_shape, has_classes=first.labels is not None))
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
