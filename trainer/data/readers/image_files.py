"""Image files (PNG, BMP, GIF, JPEG, PBM, TIFF, WebP): one of them as pixels, and folders or zips of them.

By the channels that are asked for, an image of any kind becomes
- grey: itself, 1 bit as 0 and 255, 16 bits as 0 to 65535; colours and palettes become their luma, and
  what is transparent is mixed with black, so that it is off;
- rgb: three channels of 0 to 255, mixed with black as well;
- alpha: its opacity alone, 255 without transparency.
Images are turned as their EXIF data say. One of several frames or pages counts as bad: bgan cannot know which of
them is meant.
"""

import io
import re
import stat
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ...common.errors import ConfigError, DataError
from ...common.text import first_line
from ...config.images import ImageOptions
from .labels import in_class_order
from .listing import Listing, ZipEntries
from .other_files import START_BYTES, image_suffix, named, other_files
from .source import BadImages, ImageSource, RawImages, printable, refuse_options

SUFFIXES = frozenset(
    {
        ".png",
        ".bmp",
        ".gif",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".pbm",
        ".pgm",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    }
)
# Pillow's other formats are rare, and one of them (EPS) runs another program.
_FORMATS = ("PNG", "BMP", "GIF", "JPEG", "PPM", "TIFF", "WEBP")
_ENTRY_BYTES_AT_MOST = 256 * 2**20  # of a file in a zip, which is read into memory as a whole
_EXIF = {
    "exif",
    "Raw profile type exif",
    "xmp",
    "XML:com.adobe.xmp",
}  # where Pillow keeps what says how it is turned
_KINDS_SHOWN = 5  # of files that are left aside
_OF_ARRAYS = ("key", "labels_key", "row_shape", "axes")
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}
_DEEP = {"I;16", "I;16B", "I;16L", "I;16N", "I", "F"}


class ImageFiles(ImageSource):
    """Image files of a folder or an archive, by name; the folder at the top of a name is its class."""

    def __init__(
        self, listing: Listing, open_file: Callable[[str], IO[bytes]], options: ImageOptions, path: Path
    ) -> None:
        """Raises DataError if there are none, and ConfigError for an option of arrays."""
        refuse_options(options, path, _OF_ARRAYS, "it holds image files, not arrays")
        self._open = open_file
        self._names = sorted(name for name in listing.names if is_image(name))
        if not self._names:
            raise DataError(f"{path} has no image files{other_files(listing.names, self._start, path)}")
        self._options = options
        self.classes, self._labels, of_classes = _classes(self._names)
        self.count = len(self._names)
        if options.group_by is not None:
            self.groups = _groups(self._names, options.group_by)
        listing.left_out.update(self._others(listing.names))
        self.notes = (*of_classes, *listing.notes)

    def chunks(self, bad: BadImages) -> Iterator[RawImages]:
        """Every image by itself."""
        for index, name in enumerate(self._names):
            try:
                pixels = decode_image(self._content(name), self._options.channels)
            except ValueError as error:
                bad.note(name, str(error))
                continue
            labels = None if self._labels is None else self._labels[index : index + 1]
            yield RawImages(pixels[np.newaxis], labels, index, name)

    def _content(self, name: str, at_most: int = -1) -> bytes:
        """What a file holds, or how it begins. Raises ValueError with the reason if it cannot be read."""
        try:
            with self._open(name) as file:
                return file.read(at_most)
        except ValueError:
            raise
        except Exception as error:  # zipfile, zlib and the file system raise whatever they stumble on
            raise ValueError(getattr(error, "strerror", None) or first_line(error)) from error

    def _start(self, name: str) -> bytes:
        try:
            return self._content(name, START_BYTES)
        except ValueError:
            return b""

    def _others(self, names: Sequence[str]) -> Counter[str]:
        """The kinds of files that are no images by their names, and how many there are of each."""
        others = Counter[str]()
        kinds: dict[str, str] = {}
        for name in names:
            if not is_image(name):
                suffix = Path(name).suffix.lower()
                if suffix not in kinds:
                    own = image_suffix(self._start(name))
                    what = f"images (rename them to {own}) " if own else "files "
                    kinds[suffix] = what + (f"named {printable(suffix)}" if suffix else "without a suffix")
                others[kinds[suffix]] += 1
        shown = Counter(dict(others.most_common(_KINDS_SHOWN)))
        rest = others.total() - shown.total()
        return shown + Counter({"files of other names": rest})


def open_folder(path: Path, listing: Listing, options: ImageOptions) -> ImageFiles:
    """The images of a folder and of all folders in it, as they are listed."""
    return ImageFiles(listing, lambda name: (path / name).open("rb"), options, path)


def open_zip(
    path: Path, archive: zipfile.ZipFile, listing: Listing, entries: ZipEntries, options: ImageOptions
) -> ImageFiles:
    """The images of a zip, as it is listed."""

    def open_file(name: str) -> IO[bytes]:
        entry = entries[name]
        if entry.file_size > _ENTRY_BYTES_AT_MOST:
            raise ValueError(f"it unpacks to more than {_ENTRY_BYTES_AT_MOST // 2**20} MiB")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise ValueError("it is a link; without its -y, zip stores the file itself")
        return archive.open(entry)

    return ImageFiles(listing, open_file, options, path)


def is_image(name: str) -> bool:
    """Whether a file is taken for an image, by its name."""
    return Path(name).suffix.lower() in SUFFIXES


def decode_image(content: bytes, channels: str) -> NDArray[Any]:
    """The pixels [C, H, W] of one image file. Raises ValueError with the reason if it has none."""
    if not content:
        raise ValueError("it is empty")
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
            frames = getattr(image, "n_frames", 1)
            if frames == 1:
                return _pixels(_upright(image), channels)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError("it has more pixels than Pillow considers safe") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"it is {named(content) or 'no image'}") from error
    except Exception as error:  # Pillow raises whatever it stumbles on
        raise ValueError(first_line(error)) from error
    raise ValueError(f"it has {frames} frames; save them as files of their own")


def _upright(image: Image.Image) -> Image.Image:
    """An image as its EXIF data say that it is to be shown; Pillow turns those of TIFF by itself."""
    image.load()
    if not image.info.keys() & _EXIF:
        return image
    with suppress(Exception):  # of damaged EXIF data, which are no part of the image
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _pixels(image: Image.Image, channels: str) -> NDArray[Any]:
    if channels == "alpha":
        return _planes(image.convert("RGBA").getchannel("A"))
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "black")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    if channels == "rgb":
        return _planes(image.convert("RGB"))
    return _planes(image if image.mode in _DEEP else image.convert("L"))


def _planes(image: Image.Image) -> NDArray[Any]:
    """[H, W] or [H, W, C] pixels as [C, H, W]."""
    pixels = np.asarray(image)
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _classes(
    names: Sequence[str],
) -> tuple[tuple[str, ...] | None, NDArray[np.int64] | None, tuple[str, ...]]:
    """Names of classes, the label of each file and notes: the folders below those that all files share.

    None if there is only one such folder, or if files lie beside the folders.
    """
    for depth in range(max(name.count("/") for name in names)):
        folders = [name.split("/")[depth] if name.count("/") > depth else None for name in names]
        classes = in_class_order([folder for folder in folders if folder is not None])
        if None in folders:
            note = f"{folders.count(None):,} images lie beside the folders {_shown(classes)}: there are no classes"
            return None, None, (f"{note}; with each image in the folder of its class there would be",)
        if len(classes) > 1:
            numbers = {name: number for number, name in enumerate(classes)}
            labels = np.array([numbers[folder] for folder in folders if folder is not None], np.int64)
            is_split = {name.lower() for name in classes} <= _SPLITS
            note = f"the folders {_shown(classes)} are taken as classes; to train on one of them name that folder"
            return tuple(classes), labels, (note,) if is_split else ()
    return None, None, ()


def _groups(names: Sequence[str], group_by: str) -> NDArray[np.int64]:
    """The group of each file: its folder, or what a regular expression finds in its name.

    Raises ConfigError where that is no regular expression, and DataError where it is not in a name.
    """
    try:
        pattern = re.compile("^.*(?=/)|^" if group_by == "folder" else group_by)
    except re.error as error:
        raise ConfigError(
            f"group-by is {group_by!r}: neither folder nor a regular expression ({error})"
        ) from error
    found = [pattern.search(name) for name in names]
    if None in found:
        name = printable(names[found.index(None)])
        raise DataError(f"group-by {group_by!r} is not in the name {name}; it must be in that of every image")
    keys = [match.group(1 if pattern.groups else 0) for match in found if match is not None]
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:3])) + (", ..." if len(names) > 3 else "")
