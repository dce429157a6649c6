"""Data sets that torchvision downloads and reads, with their known traps handled.

EMNIST's images lie on their side, and the labels of its letters start at 1; Omniglot's ink is 0, and its halves
have no character in common; the background of Fashion-MNIST is not quite 0, so its garments have edges only above
a threshold.
"""

import hashlib
import importlib
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ..common.errors import DataError
from ..config.images import Binarization
from .readers.image_files import decode_image

_OMNIGLOT_FOLDERS = ("images_background", "images_evaluation")
_OMNIGLOT_SIZE = (28, 28)  # of the drawings as Burda et al. 2015 have them
STACKED_CHANNELS = 3
"""Digits in an image of Stacked MNIST."""
_DOWNLOAD_TIMEOUT_SECONDS = 10
_declarations: list[torch.library.Library] = []  # a declaration lasts as long as its Library object

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchvisionDataset:
    """One of them: where its files lie, and what its pixels mean."""

    title: str
    """What messages call it."""
    kind: str
    """Its class in torchvision.datasets, which most often names its folder too."""
    files: tuple[str, ...]
    """The files that a complete folder holds."""
    options: dict[str, Any] = field(default_factory=dict)
    """More arguments of the class."""
    binarize: Binarization = "nonzero"
    """How it is made binary unless the user says otherwise."""
    threshold: float | None = None
    is_turned: bool = False
    """Whether rows and columns are exchanged."""
    counts: dict[str, int] = field(default_factory=dict)
    """Images of each split, where they are checked."""
    is_stacked: bool = False
    """Whether three images are the channels of one, see `_stacked`."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of its classes if they are not their numbers: those of a stack are its digits."""
        return tuple(f"{label:03}" for label in range(10**STACKED_CHANNELS)) if self.is_stacked else None

    def read(self, root: Path, split: str, *, full_size: bool = False) -> tuple[Pixels, Labels]:
        """The pixels, uint8 [N, C, H, W] with ink above 0, and labels from 0 of the split "train" or "test".

        They are 28x28; `full_size` leaves Omniglot's at 105x105. Downloads what is missing. Raises DataError if
        that fails, or if the files are damaged.
        """
        self.download(root)
        try:
            if self.kind == "Omniglot":
                return _read_omniglot(self._folder(root), split, None if full_size else _OMNIGLOT_SIZE)
            return self._read_idx(root, split)
        except Exception as error:  # torchvision raises whatever its parser stumbles on
            reason = f"{type(error).__name__}: {error}" if str(error) else "its files are truncated or corrupt"
            raise DataError(
                f"{self.title} in {root} cannot be read ({reason}); "
                f"delete {self._folder(root)} and run again to download it"
            ) from error

    def download(self, root: Path) -> None:
        """Download it into `root` unless it lies there. Raises DataError if that fails."""
        datasets = _import_datasets()
        if all((self._folder(root) / file).exists() for file in self.files):
            return
        try:
            with ExitStack() as undo:
                undo.callback(socket.setdefaulttimeout, socket.getdefaulttimeout())
                socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_SECONDS)
                for part in self._parts():
                    getattr(datasets, self.kind)(str(root), download=True, **part)
        except Exception as error:  # network, disk and archive errors alike
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            first = self._folder(Path()) / self.files[0].partition("/")[0]
            raise DataError(
                f"{self.title} is not in {root} and could not be downloaded ({reason}); "
                f"name a folder that has {first.as_posix()} with --data-dir or BGAN_DATA_DIR"
            ) from error

    def _folder(self, root: Path) -> Path:
        return root / ("omniglot-py" if self.kind == "Omniglot" else self.kind)

    def _parts(self) -> list[dict[str, Any]]:
        """The arguments of the calls that together download all of it."""
        if self.kind == "Omniglot":
            return [{"background": True}, {"background": False}]
        return [{"train": part, **self.options} for part in ([True, False] if self.kind == "QMNIST" else [True])]

    def _read_idx(self, root: Path, split: str) -> tuple[Pixels, Labels]:
        dataset_class = getattr(_import_datasets(), self.kind)
        source = dataset_class(str(root), train=split == "train", download=False, **self.options)
        count, expected = len(source.data), self.counts.get(split, len(source.data))
        if not len(source.targets) == count == expected:
            raise ValueError(f"{count} images and {len(source.targets)} labels where {expected} belong")
        pixels: Pixels = source.data.numpy()[:, np.newaxis]
        labels: Labels = (source.targets if source.targets.ndim == 1 else source.targets[:, 0]).numpy()
        if self.is_stacked:
            return _stacked(pixels, labels)
        first_label = int(self.options.get("split") == "letters")
        return pixels.swapaxes(2, 3) if self.is_turned else pixels, labels - first_label


def _stacked(pixels: Pixels, labels: Labels) -> tuple[Pixels, Labels]:
    """Three digits a, b and c as the channels of an image, of class 100 a + 10 b + c (Metz et al. 2017).

    The first channel has the digits in their order, the others in orders of their own: that of the random words of
    Philox with the channel as key. So each digit stands once in each channel.
    """
    count, channels = len(labels), range(1, STACKED_CHANNELS)
    orders = [np.arange(count), *(np.argsort(np.random.Philox(key=x).random_raw(count)) for x in channels)]
    stacked = np.zeros_like(labels)
    for order in orders:
        stacked = 10 * stacked + labels[order]
    return np.concatenate([pixels[order] for order in orders], axis=1), stacked


def _import_datasets() -> ModuleType:
    """torchvision.datasets, imported next to a torch build that its wheel may not be made for.

    Its wheel is built against a CUDA torch. On a CPU torch its operators do not load and its import fails with
    "operator torchvision::nms does not exist" (pytorch/vision#9085); with their schemas declared data sets work.
    """
    try:
        return importlib.import_module("torchvision.datasets")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error) or _declarations:
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    _declarations.append(library)
    return importlib.import_module("torchvision.datasets")


def _read_omniglot(folder: Path, split: str, size: tuple[int, int] | None) -> tuple[Pixels, Labels]:
    """Its drawings with ink as 255, each of all 1,623 characters a class; brought to a size by cell means.

    Three quarters of the drawings of each character are for training, 15 of 20: those whose names come first by
    their SHA-256.
    """
    files = sorted(file for half in _OMNIGLOT_FOLDERS for file in (folder / half).glob("*/*/*.png"))
    if not files:
        raise ValueError(f"{folder} has no drawings")
    _, labels = np.unique([str(file.parent) for file in files], return_inverse=True)
    names = [file.relative_to(folder).as_posix() for file in files]
    digests = np.array([hashlib.sha256(name.encode()).hexdigest() for name in names])
    by_character = np.lexsort((digests, labels))
    counts = np.bincount(labels)
    ranks = np.empty(len(files), np.int64)
    ranks[by_character] = np.arange(len(files)) - np.repeat(counts.cumsum() - counts, counts)
    is_training = 4 * ranks < 3 * counts[labels]
    rows = np.flatnonzero(is_training == (split == "train"))
    return np.stack([_drawing(files[row], size) for row in rows]), labels[rows].astype(np.int64)


def _drawing(file: Path, size: tuple[int, int] | None) -> Pixels:
    ink: Pixels = 255 - decode_image(file.read_bytes(), "grey")
    if size is None:
        return ink
    cells = F.adaptive_avg_pool2d(torch.from_numpy(ink).float(), size)
    return cells.round().to(torch.uint8).numpy()


def _idx_files(pattern: str, parts: tuple[str, str], labels: str = "labels-idx1-ubyte") -> tuple[str, ...]:
    return tuple(f"raw/{pattern.format(part)}-{kind}" for part in parts for kind in ("images-idx3-ubyte", labels))


def _plain(title: str, kind: str | None = None, **options: Any) -> TorchvisionDataset:
    files = _idx_files("{}", ("train", "t10k"))
    return TorchvisionDataset(title=title, kind=kind or title.replace("-", ""), files=files, **options)


def _emnist(part: str) -> TorchvisionDataset:
    files = _idx_files(f"emnist-{part}-{{}}", ("train", "test"))
    options = {"split": part}
    return TorchvisionDataset(title=f"EMNIST {part}", kind="EMNIST", files=files, options=options, is_turned=True)


_MNIST_COUNTS = {"train": 60_000, "test": 10_000}
TORCHVISION_DATASETS = {
    "mnist": _plain("MNIST", counts=_MNIST_COUNTS),
    "stacked-mnist": _plain("Stacked MNIST", "MNIST", counts=_MNIST_COUNTS, is_stacked=True),
    "fashion-mnist": _plain("Fashion-MNIST", binarize="threshold", threshold=127),
    "kmnist": _plain("KMNIST"),
    "qmnist": TorchvisionDataset(
        title="QMNIST", kind="QMNIST", files=_idx_files("qmnist-{}", ("train", "test"), "labels-idx2-int")
    ),
    "omniglot": TorchvisionDataset(title="Omniglot", kind="Omniglot", files=_OMNIGLOT_FOLDERS),
    **{f"emnist-{x}": _emnist(x) for x in ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")},
}
