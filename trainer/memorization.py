"""Is a sample a copy? Hamming distances to the nearest training image.

Images are uint8 [N, C, H, W] of 0 and 1.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

_ROWS = 1000


def nearest_distances(images: NDArray[np.uint8], training: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pixels in which each image differs from the training image nearest to it: int64 [N].

    |a - b| = |a| + |b| - 2 a . b for bits, exact in float32 up to 2^24 pixels.
    """
    bits = torch.from_numpy(training).flatten(1).float()
    ones = bits.sum(dim=1)
    nearest = []
    for chunk in torch.split(torch.from_numpy(images).flatten(1), _ROWS):
        rows = chunk.float()
        products = torch.addmm(ones, rows, bits.t(), alpha=-2)  # [rows, training images]
        nearest.append((products.amin(dim=1) + rows.sum(dim=1)).long())
    return torch.cat(nearest).numpy()


def unique_share(images: NDArray[np.uint8]) -> float:
    """Distinct images over images."""
    packed = np.packbits(images.reshape(len(images), -1), axis=1)
    return len(np.unique(packed, axis=0)) / len(images)
