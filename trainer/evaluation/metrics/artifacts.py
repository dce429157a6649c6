"""Artifacts of binary images, counted without labels: isolated pixels, pieces, holes and local patterns.

Images are uint8 [N, C, H, W] of 0 and 1; every channel plane counts by itself. A foreground piece is
8-connected, so the background is 4-connected, as is usual in digital topology.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.special import rel_entr

Images = NDArray[np.uint8]
Counts = NDArray[np.int64]
_PATTERNS = 512  # of 3x3 pixels
_WITHIN_PLANE_4, _WITHIN_PLANE_8 = (
    np.pad(ndimage.generate_binary_structure(2, reach)[None], ((1, 1), (0, 0), (0, 0))) for reach in (1, 2)
)


def isolated_pixels(images: Images) -> Counts:
    """On-pixels without an on-pixel among their eight neighbours, by image: int64 [N]."""
    neighbours = _in_windows(images, np.array([1, 1, 1, 1, 0, 1, 1, 1, 1]))
    return np.asarray(((images == 1) & (neighbours == 0)).sum(axis=(1, 2, 3), dtype=np.int64))


def components(images: Images) -> Counts:
    """8-connected pieces of on-pixels, by image: int64 [N]."""
    return _pieces(images == 1, _WITHIN_PLANE_8)


def holes(images: Images) -> Counts:
    """4-connected pieces of off-pixels that do not reach the border, by image: int64 [N]."""
    background = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1))) == 0
    return np.asarray(_pieces(background, _WITHIN_PLANE_4) - images.shape[1])


def pattern_counts(images: Images) -> Counts:
    """Positions with each pattern of 3x3 pixels, which are off beyond the border, by image: int64 [N, 512]."""
    patterns = _in_windows(images, 2 ** np.arange(9)).reshape(len(images), -1).astype(np.int64)
    patterns += _PATTERNS * np.arange(len(images))[:, None]
    return np.bincount(patterns.ravel(), minlength=_PATTERNS * len(images)).reshape(len(images), _PATTERNS)


def jensen_shannon_divergence(first: ArrayLike, second: ArrayLike) -> float:
    """Jensen-Shannon divergence of two distributions over the same bins, in bits, from 0 to 1 (Lin 1991).

    They may be counts. scipy's own is the root of it, and no number where rounding makes it a little less than 0.
    """
    p, q = (np.asarray(counts, np.float64) / np.sum(counts) for counts in (first, second))
    mean = (p + q) / 2
    return max(float((rel_entr(p, mean).sum() + rel_entr(q, mean).sum()) / (2 * np.log(2))), 0.0)


def _in_windows(images: Images, weights: NDArray[np.int64]) -> NDArray[np.uint16]:
    """The sums of the 3x3 pixels around each pixel, row by row by these weights [9]; off beyond the border."""
    window = weights.reshape(1, 1, 3, 3)
    return np.asarray(ndimage.correlate(images, window, output=np.uint16, mode="constant"))


def _pieces(mask: NDArray[np.bool_], structure: NDArray[np.bool_]) -> Counts:
    count, channels, height, width = mask.shape
    labels, pieces = ndimage.label(mask.reshape(count * channels, height, width), structure)
    plane_of_piece = np.zeros(pieces + 1, np.int64)
    planes = np.broadcast_to(np.arange(count * channels)[:, None, None], labels.shape)
    plane_of_piece[labels] = planes
    by_plane = np.bincount(plane_of_piece[1:], minlength=count * channels)
    return np.asarray(by_plane.reshape(count, channels).sum(axis=1))
