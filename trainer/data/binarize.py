"""Values to bits, and bits to another size.

Pixels are [n, C, H, W] of bool, integers or floats, without NaN; bits are bool of the same shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ..common.errors import ConfigError

Bits = NDArray[np.bool_]

_TOP = {"bool": 1.0, "uint8": 255.0, "uint16": 65535.0}  # the greatest value of types that have a usual range
_BINS = 256


def binarize(
    pixels: NDArray[Any], method: str, *, threshold: float | None = None, seed: int = 0, first_index: int = 0
) -> Bits:
    """Bits of the pixels by "nonzero", "threshold", "otsu" or "bernoulli".

    The bits of an image depend on it alone, and with "bernoulli" on its index in the data set.
    Raises ConfigError where the method needs to know more about the values.
    """
    if method == "nonzero":
        bits: Bits = pixels != 0
    elif method == "threshold":
        bits = pixels > (_half_of_range(pixels) if threshold is None else threshold)
    elif method == "otsu":
        bits = np.stack([_otsu(image) for image in pixels])
    else:
        probabilities = _probabilities(pixels)
        rows = [_uniforms(seed, first_index + row, image.shape) < image for row, image in enumerate(probabilities)]
        bits = np.stack(rows)
    return bits


def _half_of_range(pixels: NDArray[Any]) -> float:
    if pixels.dtype.kind == "f":
        return 0.5
    if pixels.dtype.name not in _TOP:
        raise ConfigError(f"values of type {pixels.dtype} have no usual range; say which are on with --threshold")
    return _TOP[pixels.dtype.name] / 2


def _otsu(image: NDArray[Any]) -> Bits:
    """On where a value is in the upper of the two classes that Otsu's method parts the image into (Otsu 1979).

    An image of one value has no two classes: it is on where that is not zero.
    """
    low, high = image.min(), image.max()
    if low == high:
        return np.asarray(image != 0)
    values = image.astype(np.float64)
    if image.dtype == np.uint8:
        counts, edges = np.bincount(image.ravel(), minlength=_BINS), np.arange(_BINS + 1.0)
    else:
        counts, edges = np.histogram(values, _BINS, (float(low), float(high)))
    centers = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum()[:-1]
    above = counts.sum() - below
    sums = (counts * centers).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return np.asarray(values >= edges[np.nanargmax(between) + 1])


def _probabilities(pixels: NDArray[Any]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = pixels.astype(np.float64)
    if pixels.dtype.name in _TOP:
        np.divide(values, _TOP[pixels.dtype.name], out=values)
    elif pixels.dtype.kind != "f":
        raise ConfigError(f"bernoulli takes floats in [0, 1], or 8 or 16 bits, but the values are {pixels.dtype}")
    if ((values < 0) | (values > 1)).any():
        raise ConfigError("bernoulli takes values as probabilities, but some are below 0 or above 1")
    return values


def _uniforms(seed: int, index: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Uniforms in [0, 1) for one image: a function of (seed, index)."""
    words = np.random.Philox(key=seed, counter=[0, index, 0, 0]).random_raw(int(np.prod(shape)))
    uniforms: NDArray[np.float64] = np.multiply(words >> np.uint64(11), 2.0**-53)
    return uniforms.reshape(shape)


def fit_to(bits: Bits, size: tuple[int, int], how: str) -> Bits:
    """Bits brought to (height, width).

    "pad" puts them in the middle of pixels that are off, and "crop" keeps their middle; "area" turns a pixel
    on where at least half of what it covers is on, and "max-pool" where any of it is, whatever the sides'
    ratio. Raises ValueError where "pad" would have to cut, or "crop" to pad.
    """
    if bits.shape[2:] == size:
        return bits
    own = f"it is {bits.shape[2]}x{bits.shape[3]}"
    if how == "pad":
        before = [(new - old) // 2 for new, old in zip(size, bits.shape[2:], strict=True)]
        after = [new - old - first for new, old, first in zip(size, bits.shape[2:], before, strict=True)]
        if min(*before, *after) < 0:
            raise ValueError(f"{own}, too large to pad to {size[0]}x{size[1]}")
        return np.pad(bits, ((0, 0), (0, 0), (before[0], after[0]), (before[1], after[1])))
    if how == "crop":
        top, left = ((old - new) // 2 for new, old in zip(size, bits.shape[2:], strict=True))
        if top < 0 or left < 0:
            raise ValueError(f"{own}, too small to crop to {size[0]}x{size[1]}")
        return bits[:, :, top : top + size[0], left : left + size[1]]
    values = torch.from_numpy(np.ascontiguousarray(bits)).float()
    if how == "max-pool":
        return np.asarray(F.adaptive_max_pool2d(values, size).numpy() > 0)
    return np.asarray(F.adaptive_avg_pool2d(values, size).numpy() >= 0.5)
