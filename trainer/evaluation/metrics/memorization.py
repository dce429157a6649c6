"""Is a sample a copy? Hamming distances to the nearest training image.

Images are uint8 [N, C, H, W] of 0 and 1.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ROWS = 1000
_VALUES = 2**26  # of images as floats at a time: 256 MiB


def nearest_distances(images: NDArray[np.uint8], training: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pixels in which each image differs from the training image nearest to it: int64 [N]."""
    return _nearest(images, training)[0].numpy()


def nearest_images(images: NDArray[np.uint8], training: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The index of the training image nearest to each image: int64 [N]; the first of those that are as near."""
    return _nearest(images, training)[1].numpy()


def _nearest(images: NDArray[np.uint8], training: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """The distance of each image to the nearest training image, and its index: both int64 [N].

    |a - b| = |a| + |b| - 2 a . b for bits, exact in float32 up to 2^24 pixels.
    """
    bits, known = torch.from_numpy(images).flatten(1), torch.from_numpy(training).flatten(1)
    least = torch.full((len(bits),), torch.inf)
    index = torch.zeros(len(bits), dtype=torch.int64)
    first = 0
    for block in torch.split(known, max(1, _VALUES // known.shape[1])):
        floats = block.float()
        ones = floats.sum(dim=1)
        for rows in torch.split(torch.arange(len(bits)), min(_ROWS, max(1, _VALUES // known.shape[1]))):
            own = bits[rows].float()
            distances = torch.addmm(ones, own, floats.t(), alpha=-2)  # less the pixels of `own` that are on
            place = distances.argmin(dim=1)
            found = distances.gather(1, place[:, None])[:, 0] + own.sum(dim=1)
            is_nearer = found < least[rows]
            least[rows] = torch.where(is_nearer, found, least[rows])
            index[rows] = torch.where(is_nearer, first + place, index[rows])
        first += len(block)
    return least.long(), index


def unique_share(images: NDArray[np.uint8]) -> float:
    """Distinct images over images."""
    packed = np.packbits(images.reshape(len(images), -1), axis=1)
    return len(np.unique(packed, axis=0)) / len(images)
