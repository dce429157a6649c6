"""Image files (PNG, BMP, GIF, JPEG, PBM, TIFF, WebP): one of them as pixels, and folders of them.

What becomes of one, whatever its kind:

- grey: as it is, 1-bit as 0 and 255, 16 bits as 0 to 65535; colours, palettes too, as their luma;
  what is transparent is mixed with black, so that it is off.
- rgb: three channels of 0 to 255, mixed with black as well. alpha: the opacity alone, 255 where there is none.
- An image that moves, or has several pages, is a bad one: which of them is meant is not for bgan to say.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ...common.errors import DataError
from ...config.images import ImageOptions
from .source import BadImages, RawImages

SUFFIXES = frozenset({".png", ".bmp", ".gif", ".jpg", ".jpeg", ".pbm", ".pgm", ".ppm", ".tif", ".tiff", ".webp"})
# Pillow's other formats are rare, and one of them (EPS) runs another program.
_FORMATS = ("PNG", "BMP", "GIF", "JPEG", "PPM", "TIFF", "WEBP")
_DEEP = {"I;16", "I;16B", "I;16L", "I;16N", "I", "F"}


class ImageFiles:
    """Image files, by name, that lie in a folder or an archive; the folder at the top of a name is its class."""

    def __init__(
        self, names: Sequence[str], read: Callable[[str], bytes], options: ImageOptions, path: Path
    ) -> None:
        self._names = sorted(name for name in names if Path(name).suffix.lower() in SUFFIXES)
        if not self._names:
            raise DataError(f"{path} has no image files; those of {', '.join(sorted(SUFFIXES))} are looked for")
        self._read = read
        self._options = options
        self.classes, self._labels = _classes(self._names)
        others = len(names) - len(self._names)
        self.notes = (f"{others:,} other files are left aside",) if others else ()

    @property
    def count(self) -> int:
        """Image files, good and bad."""
        return len(self._names)

    def chunks(self, bad: BadImages) -> Iterator[RawImages]:
        """Every image by itself."""
        for index, name in enumerate(self._names):
            try:
                pixels = decode_image(self._read(name), self._options.channels)
            except ValueError as error:
                bad.note(name, str(error))
                continue
            labels = None if self._labels is None else self._labels[index : index + 1]
            yield RawImages(pixels[np.newaxis], labels, index, name)


def open_folder(path: Path, options: ImageOptions) -> ImageFiles:
    """The images of a folder and of all folders in it; hidden files and links out of it are left aside."""
    root = path.resolve()
    files = [
        file
        for file in path.rglob("*")
        if file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.resolve().is_relative_to(root)
    ]
    return ImageFiles([file.relative_to(path).as_posix() for file in files], _reader(path), options, path)


def _reader(path: Path) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        try:
            return (path / name).read_bytes()
        except OSError as error:
            raise ValueError(error.strerror or str(error)) from error

    return read


def decode_image(content: bytes, channels: str) -> NDArray[Any]:
    """The pixels [C, H, W] of one image file. Raises ValueError with the reason where there are none."""
    if not content:
        raise ValueError("it is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
            frames = getattr(image, "n_frames", 1)
            if frames == 1:
                return _pixels(image, channels)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError("it has more pixels than Pillow takes for safe") from error
    except UnidentifiedImageError as error:
        raise ValueError("it is no image") from error
    except Exception as error:  # Pillow raises whatever it stumbles on
        raise ValueError(next(iter(str(error).splitlines()), type(error).__name__)) from error
    raise ValueError(f"it has {frames} frames; save them as files of their own")


def _pixels(image: Image.Image, channels: str) -> NDArray[Any]:
    if channels == "alpha":
        return _planes(image.convert("RGBA").getchannel("A"))
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "black")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    if channels == "rgb":
        return _planes(image.convert("RGB"))
    if image.mode in _DEEP:
        return _planes(image)
    return _planes(image.convert("L"))


def _planes(image: Image.Image) -> NDArray[Any]:
    """[H, W] or [H, W, C] pixels as [C, H, W]."""
    pixels = np.asarray(image)
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _classes(names: Sequence[str]) -> tuple[tuple[str, ...] | None, NDArray[np.int64] | None]:
    """Names of classes and the label of each file: the folders below those that all files share.

    None where there is but one such folder, or where files lie beside the folders.
    """
    folders = [name.split("/")[:-1] for name in names]
    shared = 0
    while all(len(parts) > shared for parts in folders):
        if len({parts[shared] for parts in folders}) > 1:
            classes = tuple(sorted({parts[shared] for parts in folders}))
            index = {name: label for label, name in enumerate(classes)}
            return classes, np.array([index[parts[shared]] for parts in folders], np.int64)
        shared += 1
    return None, None
