"""Is a sample a copy? Hamming distances to the nearest training image.

Images are uint8 [N, C, H, W] of 0 and 1.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ROWS = 1000


def nearest_distances(images: NDArray[np.uint8], training: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pixels in which each image differs from the training image nearest to it: int64 [N]."""
    nearest = [(products.amin(dim=1) + on).long() for products, on in _comparisons(images, training)]
    return torch.cat(nearest).numpy()


def nearest_images(images: NDArray[np.uint8], training: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The index of the training image nearest to each image: int64 [N]; the first of those that are as near."""
    return torch.cat([products.argmin(dim=1) for products, _ in _comparisons(images, training)]).numpy()


def _comparisons(images: NDArray[np.uint8], training: NDArray[np.uint8]) -> Iterator[tuple[Tensor, Tensor]]:
    """Of some images at a time: their distances to all training images less their pixels that are on, and those.

    |a - b| = |a| + |b| - 2 a . b for bits, exact in float32 up to 2^24 pixels. Shapes [rows, M] and [rows].
    """
    bits = torch.from_numpy(training).flatten(1).float()
    ones = bits.sum(dim=1)
    for chunk in torch.split(torch.from_numpy(images).flatten(1), _ROWS):
        rows = chunk.float()
        yield torch.addmm(ones, rows, bits.t(), alpha=-2), rows.sum(dim=1)


def unique_share(images: NDArray[np.uint8]) -> float:
    """Distinct images over images."""
    packed = np.packbits(images.reshape(len(images), -1), axis=1)
    return len(np.unique(packed, axis=0)) / len(images)
