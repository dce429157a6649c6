"""Data sets by name, or a file or folder.

"digits" is scikit-learn's bundled handwriting (1,797 images of 8x8, Alpaydin and Kaynak 1998), upscaled to
28x28, which needs no download; the other names are those of torchvision_datasets.py.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..common.errors import DataError
from ..common.image_shape import ImageShape
from ..config.dataset import DatasetSpec
from ..config.images import Binarization, ImageOptions
from .binary_images import BinaryImages
from .dataset import BinaryDataset
from .packed import ProgressCallback, packed_dataset
from .readers.arrays import ArraySource, WholeArray
from .torchvision_datasets import PUBLISHED_SETS, ensure_published, read_published

DEFAULT_DATA_DIR = "data"
_DIGITS_TRAINING_COUNT = 1540  # six sevenths, as of MNIST; the set is ordered by writer
_DIGITS_LEVELS = 16
_PUBLISHED_SIZE = (28, 28)  # of all but Omniglot


def data_root(data_dir: str | None) -> Path:
    """The folder of data sets: the given one, BGAN_DATA_DIR, or ./data."""
    return Path(data_dir or os.environ.get("BGAN_DATA_DIR") or DEFAULT_DATA_DIR)


def open_dataset(
    choice: DatasetSpec, *, split: str = "train", progress: ProgressCallback = lambda done, total: None
) -> BinaryDataset:
    """The split "train", "test" or "all" of what was chosen.

    A file or folder is converted on first use, which `progress` hears of. Raises DataError where it cannot be
    had, or has no image in that split, and ConfigError where an option does not fit it.
    """
    if choice.data is None:
        return load_dataset(choice.dataset, data_dir=choice.data_dir, split=split, options=choice.options)
    packed = packed_dataset(Path(choice.data), choice.options, progress=progress)
    if choice.digest not in {None, packed.digest}:
        raise DataError(
            f"the images of {choice.data} are not those that were trained on: their digest is "
            f"{packed.digest[:12]}, it was {choice.digest[:12]}; bring those back, or name others with --data"
        )
    images = packed.images(split)
    if not len(images):
        raise DataError(f"{choice.data} has {len(packed.rows)} images, of which none is held out for tests")
    labels = packed.labels
    if labels is not None:
        labels = labels[images.positions(torch.arange(len(images)))]
    return BinaryDataset(
        choice.dataset,
        images,
        None if labels is None else torch.from_numpy(labels),
        packed.classes,
        packed.digest,
        packed.notes,
    )


def known_image_shape(choice: DatasetSpec) -> ImageShape | None:
    """The shape of the images of a published set, which is known without reading it; None for other images."""
    if choice.data is not None or choice.dataset == "omniglot":
        return None
    return ImageShape(1, *(choice.options.height_and_width or _PUBLISHED_SIZE))


def load_dataset(
    name: str, *, data_dir: str | None = None, split: str = "train", options: ImageOptions | None = None
) -> BinaryDataset:
    """The split "train", "test" or "all" of a data set by name.

    Raises DataError where it cannot be had, or is no good as the options make it, and ConfigError where an
    option does not fit it.
    """
    if split == "all":
        parts = [load_dataset(name, data_dir=data_dir, split=part, options=options) for part in ("train", "test")]
        images = [part.images for part in parts if isinstance(part.images, Tensor)]
        labels = [part.labels for part in parts if part.labels is not None]
        return BinaryDataset(name, torch.cat(images), torch.cat(labels) if len(labels) == len(parts) else None)
    options = options or ImageOptions()
    options.check_for_pixels(name)
    pixels, targets, usual = _pixels_of(name, data_root(data_dir), split)
    if options.binarize is None:
        options = dataclasses.replace(options, binarize=usual[0], threshold=usual[1])
    source = ArraySource(WholeArray(pixels), ImageOptions(), name)
    bits = np.concatenate([bits for bits, _ in BinaryImages(source, options, name).chunks()])
    return BinaryDataset(name, torch.from_numpy(bits.view(np.uint8)), torch.from_numpy(targets))


def resolve_dataset(name: str, *, data_dir: str | None = None) -> tuple[str, str | None]:
    """What "auto" stands for here: "mnist" where it is or can be downloaded, else ("digits", why not)."""
    if name != "auto":
        return name, None
    try:
        ensure_published("mnist", data_root(data_dir))
    except DataError as error:
        return "digits", str(error)
    return "mnist", None


def choose_dataset(name: str, *, data_dir: str | None, say: Callable[[str], None]) -> str:
    """What `resolve_dataset` gives; `say` hears why it is the digits."""
    resolved, reason = resolve_dataset(name, data_dir=data_dir)
    if reason:
        say(f"using the bundled digits: {reason}")
    return resolved


def _pixels_of(
    name: str, root: Path, split: str
) -> tuple[NDArray[Any], NDArray[np.int64], tuple[Binarization, float | None]]:
    """Pixels [N, 1, H, W] and labels [N] of one split, and the usual binarization with its threshold."""
    if name == "digits":
        return *_load_digits(split), ("threshold", 0.5)
    if name not in PUBLISHED_SETS:
        raise DataError(f"there is no data set {name!r}; there are digits, {', '.join(PUBLISHED_SETS)}")
    published = PUBLISHED_SETS[name]
    return *read_published(name, root, split), (published.binarize, published.threshold)


def _load_digits(split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    part = slice(None, _DIGITS_TRAINING_COUNT) if split == "train" else slice(_DIGITS_TRAINING_COUNT, None)
    levels = torch.from_numpy(bunch.images[part]).float().unsqueeze(1)  # [N, 1, 8, 8] of 0 .. 16
    pixels = F.interpolate(levels / _DIGITS_LEVELS, size=(28, 28), mode="bilinear")
    return pixels.numpy(), bunch.target[part]
