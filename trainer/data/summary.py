"""What a set of binary images is like: figures, warnings and a picture."""

import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..common.grids import side_by_side, tiled
from ..common.image_shape import ImageShape
from .dataset import BinaryDataset
from .readers.source import printable

_SAMPLES = 64
_FEW_IMAGES = 1000
_MANY_COPIES = 0.01
_RARE_CLASS = 0.1  # of the images that it would have if all were as frequent
_GAP, _BACKGROUND = 2, 90
_COLUMNS, _PICTURE_WIDTH, _CELL = 8, 1200, 64  # images in a row; pixels of a picture, and of an enlarged image
_MEAN_ENLARGED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary:
    """What was found in a set of images."""

    name: str
    count: int
    image_shape: ImageShape
    on_fraction: float
    classes: dict[str, int] | None
    """Images of each class; None without labels."""
    duplicates: int
    """Images that are copies of an earlier one."""
    always_off: int
    always_on: int
    digest: str | None
    """SHA-256 of images and labels; None for a data set by name."""
    warnings: tuple[str, ...]
    samples: NDArray[np.uint8]
    """At most 64 images, evenly spaced: [n, C, H, W] of 0 and 1."""
    mean: NDArray[np.float64]
    """The mean image, [C, H, W]."""

    def to_dict(self) -> dict[str, Any]:
        """All but the pictures, ready for JSON."""
        names = [name for name in self.__slots__ if name not in {"samples", "mean"}]
        return {name: getattr(self, name) for name in names}


def summarize(dataset: BinaryDataset) -> DataSummary:
    """Look at all images of a set, some at a time."""
    on = np.zeros(dataset.image_shape, np.int64)
    hashes: list[NDArray[np.int64]] = []
    for images in dataset.chunks():
        on += images.sum(axis=0, dtype=np.int64)
        packed = np.packbits(images.reshape(len(images), -1), axis=1)
        hashes.append(np.array([hash(row.tobytes()) for row in packed]))
    count = len(dataset)
    summary = DataSummary(
        name=dataset.name,
        count=count,
        image_shape=dataset.image_shape,
        on_fraction=float(on.sum() / (on.size * count)),
        classes=_class_counts(dataset),
        duplicates=count - len(np.unique(np.concatenate(hashes))),
        always_off=int((on == 0).sum()),
        always_on=int((on == count).sum()),
        digest=dataset.digest,
        warnings=dataset.notes,
        samples=dataset.images[torch.arange(min(_SAMPLES, count)) * count // min(_SAMPLES, count)].numpy(),
        mean=on / count,
    )
    return replace(summary, warnings=(*summary.warnings, *_warnings(summary)))


def _class_counts(dataset: BinaryDataset) -> dict[str, int] | None:
    if dataset.labels is None:
        return None
    counts = np.bincount(dataset.labels.numpy(), minlength=len(dataset.classes or ())).tolist()
    names = dataset.classes or tuple(str(label) for label in range(len(counts)))
    return dict(zip(names, counts, strict=True))


def _warnings(summary: DataSummary) -> list[str]:
    found, count, classes = [], summary.count, summary.classes or {}
    constant = (summary.always_off + summary.always_on) / summary.mean.size
    if count < _FEW_IMAGES:
        found.append(f"{count:,} images are few to learn from")
    if summary.on_fraction > 0.5:
        found.append("more pixels are on than off; if the ink is what is off, exchange them with --invert")
    if summary.duplicates > _MANY_COPIES * count:
        found.append(f"{summary.duplicates / count:.1%} of the images are copies of others")
    if constant > 0.5:
        share = f"{constant:.0%} of the pixels are the same in all images"
        found.append(f"{share}; --size with --fit crop cuts a margin off")
    rare = [name for name, own in classes.items() if own < _RARE_CLASS * count / len(classes)]
    if rare:
        more = f" and {len(rare) - 3} more classes" if len(rare) > 3 else ""
        named = ", ".join(map(printable, rare[:3])) + more
        found.append(f"rare: {named}, with less than a tenth of an even share of the images")
    return found


def draw_summary(summary: DataSummary) -> bytes:
    """A PNG of samples beside the mean image, where lighter means more often on. Channels lie side by side."""
    samples = side_by_side(255 * summary.samples)
    mean = side_by_side(np.round(255 * summary.mean).astype(np.uint8)[np.newaxis])[0]
    height, width = mean.shape
    scale = max(1, _CELL // max(height, width))
    columns = max(1, min(_COLUMNS, _PICTURE_WIDTH // (width * scale + _GAP)))
    grid = tiled(_enlarged(samples, scale), columns=columns, gap=_GAP, background=_BACKGROUND)
    enlarged = max(1, min(_MEAN_ENLARGED * scale, len(grid) // height, _PICTURE_WIDTH // 2 // width))
    mean = np.pad(_enlarged(mean, enlarged), _GAP)
    picture = np.full((max(len(grid), len(mean)), grid.shape[1] + mean.shape[1] + _GAP), _BACKGROUND, np.uint8)
    picture[: len(grid), : grid.shape[1]] = grid
    picture[: len(mean), -mean.shape[1] :] = mean
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()


def _enlarged(images: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Every pixel of [..., H, W] as scale x scale ones."""
    return images.repeat(scale, axis=-2).repeat(scale, axis=-1)
