"""Binary images on disk, one bit a pixel, mapped into memory: sets of any size, without loading them.

`packed_dataset` converts a file or folder once, into a folder of the cache that is named by a digest of what
was read and how. That folder is whole or absent:

    images.bin    one row an image, as numpy's packbits(axis=1) makes them; for dynamic binarization a byte a pixel
    labels.npy    int64 [N], where there are labels
    groups.npy    int64 [N], where images are in groups
    dataset.json  shape, count, classes, notes, and the SHA-256 of images and labels, checked whenever it is opened
"""

import errno
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..common.errors import DataError
from ..common.files import as_text, cache_folder, temporary_name, write_json
from ..common.locks import file_lock
from ..config.images import ImageOptions
from .binarize import AnyBits, draw_levels
from .binary_images import BinaryImages, Labels, settled_labels
from .groups import Groups, in_whole_groups
from .readers.array_files import labels_beside
from .readers.detect import open_images
from .readers.listing import list_folder

_TEST_EVERY = 7  # the last of so many images is held out for tests: one seventh, as of MNIST
_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 600.0  # with another process that converts the same images, but writes nothing
_ABANDONED_SECONDS = 3600.0
_VERSION = 3  # of the conversion: a change converts every set again

ProgressCallback = Callable[[int, int | None], None]


class PackedImages:
    """Some images of a packed set. Indexing unpacks some of them.

    `positions` are their places in the set, int64 [N]. With a `dynamic_seed` the rows are levels of probability, a
    byte a pixel, from which bits are drawn: by that seed, or anew for an epoch.
    """

    def __init__(
        self,
        rows: NDArray[np.uint8],
        image_shape: tuple[int, ...],
        positions: NDArray[np.int64],
        dynamic_seed: int | None = None,
    ) -> None:
        self._rows, self._dynamic_seed = rows, dynamic_seed
        self.positions = positions
        self.shape = (len(positions), *image_shape)
        """[N, C, H, W]."""

    def __len__(self) -> int:
        """The number of images."""
        return self.shape[0]

    def __getitem__(self, indices: Tensor) -> Tensor:
        """The images of these indices, uint8 [n, C, H, W] of 0 and 1."""
        return self._images(indices, seed=self._dynamic_seed, draw=0)

    def in_epoch(self, indices: Tensor, *, seed: int, epoch: int) -> Tensor:
        """The same as training sees them in an epoch: by dynamic binarization drawn anew for each."""
        return self._images(indices, seed=None if self._dynamic_seed is None else seed, draw=1 + epoch)

    def _images(self, indices: Tensor, *, seed: int | None, draw: int) -> Tensor:
        positions = self.positions[indices.numpy()]
        rows = self._rows[positions]
        if seed is None:
            bits = np.unpackbits(rows, axis=1, count=math.prod(self.shape[1:]))
        else:
            bits = draw_levels(rows, positions, seed=seed, draw=draw).view(np.uint8)
        return torch.from_numpy(bits).view(-1, *self.shape[1:])

    def part(self, indices: Tensor) -> "PackedImages":
        """Those of these indices, still packed."""
        return PackedImages(self._rows, self.shape[1:], self.positions[indices.numpy()], self._dynamic_seed)


@dataclass(frozen=True, slots=True)
class PackedSet:
    """A packed set, opened."""

    folder: Path
    path: str
    """What it was made from."""
    image_shape: tuple[int, int, int]
    rows: NDArray[np.uint8]
    """uint8 [N, bytes], mapped."""
    dynamic_seed: int | None
    """See `PackedImages`."""
    labels: Labels | None
    groups: Groups | None
    """int64 [N]: those with the same number are held out together."""
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]
    digest: str
    """SHA-256 of shape, images and labels."""

    def images(self, split: str) -> PackedImages:
        """The images of "train", "test" (every seventh, or whole groups of as many) or "all"."""
        positions = np.arange(len(self.rows))
        if split == "all" or self.groups is None:
            is_test = positions % _TEST_EVERY == _TEST_EVERY - 1
        else:
            is_test = in_whole_groups(self.groups, len(positions) // _TEST_EVERY, self.path)
        chosen = {"train": ~is_test, "test": is_test, "all": slice(None)}[split]
        return PackedImages(self.rows, self.image_shape, positions[chosen], self.dynamic_seed)


def packed_dataset(
    path: Path,
    options: ImageOptions,
    *,
    cache: Path | None = None,
    progress: ProgressCallback = lambda done, total: None,
) -> PackedSet:
    """The images of a file or folder, converted on first use; `progress` is called with (done, of how many).

    Raises DataError if they cannot be read, trained on or written, which leaves nothing behind, and ConfigError
    if an option does not fit them.
    """
    folder = (cache or cache_folder()) / "images" / _fingerprint(path, options)
    found = _opened(folder)
    try:
        if found is None:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _in_turn(folder, progress):
                if (found := _opened(folder)) is None:
                    _make(folder, path, options, progress)
                    found = _opened(folder)
    except OSError as error:
        raise DataError(
            f"cannot write to {error.filename or folder / 'images.bin'}: {error.strerror or error}; nothing was "
            "kept. Make room, or name another folder with BGAN_CACHE_DIR"
        ) from error
    if found is None:
        raise DataError(f"{folder} does not read back as it was written; is the disk sound?")
    return found


@contextmanager
def _in_turn(folder: Path, progress: ProgressCallback) -> Iterator[None]:
    """Wait while another process makes this folder; one that stands still is not waited for."""
    with ExitStack() as held:
        before, until = -1.0, 0.0
        while True:
            try:
                held.enter_context(file_lock(folder.with_name(f".{folder.name}.lock")))
                break
            except BlockingIOError:
                written = max(map(_last_write, folder.parent.glob(f".{folder.name}.*.tmp")), default=0.0)
                if written != before:
                    before, until = written, time.monotonic() + _PATIENCE_SECONDS
                if time.monotonic() > until:
                    break
            progress(0, None)
            time.sleep(_POLL_SECONDS)
        yield


def _make(folder: Path, path: Path, options: ImageOptions, progress: ProgressCallback) -> None:
    """Convert the images into a folder of another name, then give it its own."""
    writing = folder.with_name(f".{folder.name}{temporary_name(folder).name}")
    writing.mkdir()
    _remove_abandoned(folder.parent, now=_last_write(writing))
    try:
        with open_images(path, options) as source:
            about = {"source": str(path), "options": options.to_dict()}
            _convert(BinaryImages(source, options, path), writing, progress, about)
        _install(writing, folder)
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def _install(writing: Path, folder: Path) -> None:
    """Give a folder its name. A whole one that another process made meanwhile stays, a damaged one goes."""
    while True:
        try:
            writing.rename(folder)
            return
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        if _opened(folder) is not None:
            return
        damaged = temporary_name(folder)
        with suppress(FileNotFoundError):  # another process has moved it away
            folder.rename(damaged)
        shutil.rmtree(damaged, ignore_errors=True)


def _remove_abandoned(folder: Path, *, now: float) -> None:
    """Remove what killed processes have left: what was not written to for long, by the file system's own clock."""
    for left in folder.glob(".*.tmp"):
        if _last_write(left) < now - _ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _last_write(folder: Path) -> float:
    """When anything in a folder was written to last; a conversion that lives writes all the time."""
    times = []
    for path in (folder, *folder.glob("*")):
        with suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return max(times, default=0.0)


def _convert(images: BinaryImages, folder: Path, progress: ProgressCallback, about: dict[str, Any]) -> None:
    digest, shape = hashlib.sha256(), None
    parts: list[Labels] = []
    with (folder / "images.bin").open("wb") as file:
        for bits, own_labels in images.chunks():
            if shape is None:
                shape = bits.shape[1:]
                digest.update("x".join(map(str, shape)).encode())
            rows = np.ascontiguousarray(_rows_of(bits))  # of any memory order
            file.write(rows.data)
            digest.update(rows.data)
            if own_labels is not None:
                parts.append(own_labels)
            progress(images.count, images.source.count)
        file.flush()
        os.fsync(file.fileno())
    labels, classes = settled_labels(parts, images.source.classes)
    if labels is not None:
        digest.update(labels.data)
        np.save(folder / "labels.npy", labels, allow_pickle=False)
    if images.groups is not None:
        np.save(folder / "groups.npy", images.groups, allow_pickle=False)
    about |= {"image_shape": shape, "count": images.count, "classes": classes, "notes": images.notes}
    about["has_groups"] = images.groups is not None
    write_json(folder / "dataset.json", {"version": _VERSION, **about, "sha256": digest.hexdigest()})


def _rows_of(bits: AnyBits) -> NDArray[np.uint8]:
    """An image a row: bits packed, levels as they are."""
    flat = bits.reshape(len(bits), -1)
    return flat.view(np.uint8) if flat.dtype == np.uint8 else np.packbits(flat, axis=1)


def _opened(folder: Path) -> PackedSet | None:
    """The packed set of a folder; None if it is absent or damaged."""
    try:
        about = json.loads((folder / "dataset.json").read_bytes())
        shape = tuple(about["image_shape"])
        is_dynamic = about["options"]["binarize"] == "dynamic"
        row_bytes = math.prod(shape) if is_dynamic else (math.prod(shape) + 7) // 8
        seed = about["options"]["bernoulli_seed"] if is_dynamic else None
        labels = None if about["classes"] is None else np.load(folder / "labels.npy", allow_pickle=False)
        groups = np.load(folder / "groups.npy", allow_pickle=False) if about["has_groups"] else None
        if _digest(folder / "images.bin", shape, labels) != about["sha256"]:
            return None
        rows = np.memmap(folder / "images.bin", np.uint8, "r", shape=(about["count"], row_bytes))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    classes = None if about["classes"] is None else tuple(map(as_text, about["classes"]))
    notes = tuple(about["notes"])
    return PackedSet(
        folder, about["source"], shape, np.asarray(rows), seed, labels, groups, classes, notes, about["sha256"]
    )


def _digest(path: Path, shape: tuple[int, ...], labels: Labels | None) -> str:
    """SHA-256 of what is trained on; the file is read, not mapped, so that it does not count as resident."""
    digest = hashlib.sha256("x".join(map(str, shape)).encode())
    with path.open("rb") as file:
        hashlib.file_digest(file, lambda: digest)
    if labels is not None:
        digest.update(labels.data)
    return digest.hexdigest()


def _fingerprint(path: Path, options: ImageOptions) -> str:
    """A digest of what is read and how: paths, sizes and times of the files, and all options."""
    root = path.absolute()
    if root.is_dir():
        files = [root / name for name in sorted(list_folder(root).names)]
    else:
        files = [root, labels_beside(root)]
    states = [(str(file), file.stat()) for file in files if file.is_file()]
    known = [(name, state.st_size, state.st_mtime_ns, state.st_ctime_ns) for name, state in states]
    described = json.dumps({"version": _VERSION, "files": known, "options": options.to_dict()}, sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:32]
