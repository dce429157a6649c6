"""Pictures of images, side by side."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from .torchvision_import import import_torchvision

GRID_COLUMNS = 8


def save_grid(images: Tensor, path: Path, *, columns: int = GRID_COLUMNS) -> None:
    """Write [N, C, H, W] images in [0, 1] as a PNG of 8 columns, or so many.

    Three channels are colours; other numbers of channels lie side by side.
    """
    count, channels, height, width = images.shape
    if channels not in (1, 3):
        images = images.transpose(1, 2).reshape(count, 1, height, channels * width)
    utils = import_torchvision("torchvision.utils")
    utils.save_image(images.float(), str(path), nrow=columns, padding=2, pad_value=0.35)
