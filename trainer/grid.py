"""Pictures of images, side by side."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from .torchvision_import import import_torchvision


def save_grid(images: Tensor, path: Path) -> None:
    """Write [N, C, H, W] images in [0, 1] as a PNG of 8 columns; of other than 1 or 3 channels, side by side."""
    count, channels, height, width = images.shape
    if channels not in (1, 3):
        images = images.transpose(1, 2).reshape(count, 1, height, channels * width)
    utils = import_torchvision("torchvision.utils")
    utils.save_image(images.float(), str(path), nrow=8, padding=2, pad_value=0.35)
