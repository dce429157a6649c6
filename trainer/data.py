"""Data sets of binary images, kept in memory as one byte a pixel.

"mnist" is torchvision's MNIST; "digits" is scikit-learn's bundled handwriting (1,797 images of 8x8,
Alpaydin and Kaynak 1998), upscaled to 28x28, which needs no download.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import DataError
from .networks import ImageShape
from .randomness import random_stream
from .torchvision_import import import_torchvision

DEFAULT_DATA_DIR = "data"
_DOWNLOAD_TIMEOUT_SECONDS = 10
_DIGITS_TRAINING_COUNT = 1540  # six sevenths, as of MNIST; the set is ordered by writer
_DIGITS_LEVELS = 16
_MNIST_COUNTS = {"train": 60_000, "test": 10_000}


@dataclass(frozen=True, slots=True)
class BinaryDataset:
    """Binary images of one split."""

    name: str
    """Which data set it is."""
    images: Tensor
    """uint8 [N, C, H, W] of 0 and 1."""
    labels: Tensor | None
    """int64 [N], classes from 0; None for a data set without labels."""

    @property
    def image_shape(self) -> ImageShape:
        """The shape of one image."""
        return ImageShape(*self.images.shape[1:])

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)


class BatchStream:
    """An endless stream of batches; every pass over the images has an order of its own.

    Batch `index` is a function of (images, batch_size, seed, index) alone, so a run can go on at any
    index. What does not fill a batch at the end of a pass is left out of that pass.
    """

    def __init__(self, images: Tensor, *, batch_size: int, seed: int) -> None:
        if batch_size > len(images):
            raise DataError(f"batch-size is {batch_size}, but there are only {len(images)} images to train on")
        self._images = images
        self._batch_size = batch_size
        self._seed = seed
        self._pass = -1
        self._order = torch.empty(0, dtype=torch.int64)

    @property
    def batches_per_pass(self) -> int:
        """Whole batches in one pass over the images."""
        return len(self._images) // self._batch_size

    def batch(self, index: int) -> Tensor:
        """Batch `index` as float32 [B, C, H, W] of 0 and 1, on the device of the images."""
        current_pass, position = divmod(index, self.batches_per_pass)
        if current_pass != self._pass:
            generator = random_stream(self._seed, "order", current_pass)
            self._order = torch.randperm(len(self._images), generator=generator).to(self._images.device)
            self._pass = current_pass
        rows = self._order[position * self._batch_size : (position + 1) * self._batch_size]
        return self._images[rows].float()


def data_root(data_dir: str | None) -> Path:
    """The folder of data sets: the given one, BGAN_DATA_DIR, or ./data."""
    return Path(data_dir or os.environ.get("BGAN_DATA_DIR") or DEFAULT_DATA_DIR)


def load_dataset(name: str, *, data_dir: str | None = None, split: str = "train") -> BinaryDataset:
    """The split "train", "test" or "all" of "mnist" or "digits". Raises DataError where it cannot be had."""
    if split == "all":
        parts = [load_dataset(name, data_dir=data_dir, split=part) for part in ("train", "test")]
        labels = [part.labels for part in parts if part.labels is not None]
        return BinaryDataset(
            name,
            torch.cat([part.images for part in parts]),
            torch.cat(labels) if len(labels) == len(parts) else None,
        )
    if name == "digits":
        return _load_digits(split)
    return _load_mnist(data_root(data_dir), split)


def resolve_dataset(name: str, *, data_dir: str | None = None) -> tuple[str, str | None]:
    """What "auto" stands for here: "mnist" where it is or can be downloaded, else ("digits", why not)."""
    if name != "auto":
        return name, None
    try:
        _ensure_mnist(data_root(data_dir))
    except DataError as error:
        return "digits", str(error)
    return "mnist", None


def choose_dataset(name: str, *, data_dir: str | None, say: Callable[[str], None]) -> str:
    """What `resolve_dataset` gives; `say` hears why it is the digits."""
    resolved, reason = resolve_dataset(name, data_dir=data_dir)
    if reason:
        say(f"using the bundled digits: {reason}")
    return resolved


def _load_digits(split: str) -> BinaryDataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    part = slice(None, _DIGITS_TRAINING_COUNT) if split == "train" else slice(_DIGITS_TRAINING_COUNT, None)
    levels = torch.from_numpy(bunch.images[part]).to(torch.uint8).unsqueeze(1)  # [N, 1, 8, 8] of 0 .. 16
    chunks = [
        F.interpolate(chunk.float(), size=(28, 28), mode="bilinear") > _DIGITS_LEVELS / 2
        for chunk in torch.split(levels, 256)
    ]
    return BinaryDataset("digits", torch.cat(chunks).to(torch.uint8), torch.from_numpy(bunch.target[part]))


def _load_mnist(root: Path, split: str) -> BinaryDataset:
    _ensure_mnist(root)
    datasets = import_torchvision("torchvision.datasets")
    try:
        source = datasets.MNIST(str(root), train=split == "train", download=False)
        count, expected = len(source.data), _MNIST_COUNTS[split]
        if not len(source.targets) == count == expected:
            raise ValueError(f"{count} images and {len(source.targets)} labels where {expected} belong")
    except Exception as error:  # torchvision raises whatever its parser stumbles on
        reason = f"{type(error).__name__}: {error}" if str(error) else "its files are truncated or corrupt"
        raise DataError(
            f"MNIST in {root} cannot be read ({reason}); delete {root / 'MNIST'} and run again to download it"
        ) from error
    return BinaryDataset("mnist", source.data.ne(0).to(torch.uint8).unsqueeze(1), source.targets)


def _ensure_mnist(root: Path) -> None:
    """Download MNIST into `root` unless it lies there. Raises DataError where that fails."""
    datasets = import_torchvision("torchvision.datasets")
    if _has_mnist(root):
        return
    try:
        with _socket_timeout(_DOWNLOAD_TIMEOUT_SECONDS):
            datasets.MNIST(str(root), train=True, download=True)
    except Exception as error:  # network, disk and archive errors alike
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise DataError(
            f"MNIST is not in {root} and could not be downloaded ({reason}); "
            "name a folder that has MNIST/raw with --data-dir or BGAN_DATA_DIR"
        ) from error


def _has_mnist(root: Path) -> bool:
    raw = root / "MNIST" / "raw"
    names = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    return all((raw / name).is_file() for name in names)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
