"""Published sets of images by name, through torchvision, with their known traps handled.

EMNIST's images lie on their side, and the labels of its letters start at 1; Omniglot's ink is 0; Fashion-MNIST
has background that is not quite 0, so that its garments have edges only above a threshold.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.errors import DataError
from ..config.images import Binarization
from .readers.image_files import decode_image
from .torchvision_compat import import_torchvision

_DOWNLOAD_TIMEOUT_SECONDS = 10
_OMNIGLOT_FOLDERS = {"train": "images_background", "test": "images_evaluation"}

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchvisionDataset:
    """One of them."""

    title: str
    """What it is called, in messages."""
    kind: str
    """Its class in torchvision.datasets, which names its folder too."""
    files: tuple[str, ...]
    """What lies in its folder when it is all there."""
    options: dict[str, Any] = field(default_factory=dict)
    """More arguments of the class."""
    binarize: Binarization = "nonzero"
    """How it is made binary where that is not asked for."""
    threshold: float | None = None
    """The threshold for that."""
    is_turned: bool = False
    """Whether rows and columns are exchanged."""
    counts: dict[str, int] | None = None
    """Images of each split, where it has been checked."""

    @property
    def folder(self) -> str:
        """Its folder in the folder of data sets."""
        return "omniglot-py" if self.kind == "Omniglot" else self.kind


def _idx_files(pattern: str, parts: tuple[str, str], labels: str = "labels-idx1-ubyte") -> tuple[str, ...]:
    return tuple(f"raw/{pattern.format(part)}-{kind}" for part in parts for kind in ("images-idx3-ubyte", labels))


_PLAIN = _idx_files("{}", ("train", "t10k"))


def _emnist(part: str) -> TorchvisionDataset:
    files = _idx_files(f"emnist-{part}-{{}}", ("train", "test"))
    title = f"EMNIST {part}"
    return TorchvisionDataset(title=title, kind="EMNIST", files=files, options={"split": part}, is_turned=True)


PUBLISHED_SETS = {
    "mnist": TorchvisionDataset(
        title="MNIST", kind="MNIST", files=_PLAIN, counts={"train": 60_000, "test": 10_000}
    ),
    "fashion-mnist": TorchvisionDataset(
        title="Fashion-MNIST", kind="FashionMNIST", files=_PLAIN, binarize="threshold", threshold=127
    ),
    "kmnist": TorchvisionDataset(title="KMNIST", kind="KMNIST", files=_PLAIN),
    "qmnist": TorchvisionDataset(
        title="QMNIST", kind="QMNIST", files=_idx_files("qmnist-{}", ("train", "test"), "labels-idx2-int")
    ),
    "omniglot": TorchvisionDataset(title="Omniglot", kind="Omniglot", files=tuple(_OMNIGLOT_FOLDERS.values())),
    **{
        f"emnist-{part}": _emnist(part)
        for part in ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")
    },
}


def read_published(name: str, root: Path, split: str) -> tuple[Pixels, Labels]:
    """The pixels, uint8 [N, 1, H, W] with ink above 0, and labels from 0 of the split "train" or "test".

    It is downloaded where it is missing. Raises DataError where it cannot be had.
    """
    published = PUBLISHED_SETS[name]
    ensure_published(name, root)
    try:
        if published.kind == "Omniglot":
            return _read_omniglot(root / published.folder / _OMNIGLOT_FOLDERS[split])
        return _read_idx(published, root, split)
    except Exception as error:  # torchvision raises whatever its parser stumbles on
        reason = f"{type(error).__name__}: {error}" if str(error) else "its files are truncated or corrupt"
        raise DataError(
            f"{published.title} in {root} cannot be read ({reason}); "
            f"delete {root / published.folder} and run again to download it"
        ) from error


def _read_idx(published: TorchvisionDataset, root: Path, split: str) -> tuple[Pixels, Labels]:
    dataset_class = getattr(import_torchvision("torchvision.datasets"), published.kind)
    source = dataset_class(str(root), train=split == "train", download=False, **published.options)
    count, expected = len(source.data), (published.counts or {}).get(split, len(source.data))
    if not len(source.targets) == count == expected:
        raise ValueError(f"{count} images and {len(source.targets)} labels where {expected} belong")
    pixels: Pixels = source.data.numpy()[:, np.newaxis]
    labels: Labels = (source.targets if source.targets.ndim == 1 else source.targets[:, 0]).numpy()
    if published.options.get("split") == "letters":
        labels = labels - 1
    return (pixels.swapaxes(2, 3) if published.is_turned else pixels), labels


def _read_omniglot(folder: Path) -> tuple[Pixels, Labels]:
    """Its drawings by alphabet and character, each character a class, with ink as 255."""
    files = sorted(folder.glob("*/*/*.png"))
    if not files:
        raise ValueError(f"{folder} has no drawings")
    characters = {character: label for label, character in enumerate(sorted({file.parent for file in files}))}
    pixels = np.stack([255 - decode_image(file.read_bytes(), "grey") for file in files])
    return pixels, np.array([characters[file.parent] for file in files], np.int64)


def ensure_published(name: str, root: Path) -> None:
    """Download it into `root` unless it lies there. Raises DataError where that fails."""
    published = PUBLISHED_SETS[name]
    datasets = import_torchvision("torchvision.datasets")
    if all((root / published.folder / file).exists() for file in published.files):
        return
    try:
        with _socket_timeout(_DOWNLOAD_TIMEOUT_SECONDS):
            for part in _arguments(published):
                getattr(datasets, published.kind)(str(root), download=True, **part)
    except Exception as error:  # network, disk and archive errors alike
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{published.title} is not in {root} and could not be downloaded ({reason}); "
            f"name a folder that has {published.folder}/{published.files[0].partition('/')[0]} with --data-dir or "
            "BGAN_DATA_DIR"
        ) from error


def _arguments(published: TorchvisionDataset) -> list[dict[str, Any]]:
    """The arguments that make torchvision download all of it."""
    if published.kind == "Omniglot":
        return [{"background": True}, {"background": False}]
    parts = [True, False] if published.kind == "QMNIST" else [True]
    return [{"train": part, **published.options} for part in parts]


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
