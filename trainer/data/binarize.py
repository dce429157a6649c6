"""Values to bits, and bits to another size.

Pixels are [n, C, H, W] of bool, integers or floats, without NaN; bits are bool of the same shape.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ..common.errors import ConfigError

Bits = NDArray[np.bool_]
Levels = NDArray[np.uint8]
"""Probabilities in steps of 1/255, of pixels that are drawn anew for each epoch of training."""
AnyBits = Bits | Levels

_TOP = {"bool": 1.0, "uint8": 255.0, "uint16": 65535.0}  # the greatest value of types that have a usual range
_BINS = 256
_LEVEL_PROBABILITIES = np.arange(256) / 255


def binarize(
    pixels: NDArray[Any], method: str, *, threshold: float | None = None, seed: int = 0, first_index: int = 0
) -> Bits:
    """Bits of the pixels by "nonzero", "threshold", "otsu" or "bernoulli".

    The bits of an image depend on it alone, and with "bernoulli" on its index in the data set.
    Raises ConfigError if the values do not suit the method.
    """
    if method == "nonzero":
        bits: Bits = pixels != 0
    elif method == "threshold":
        half = "say which are on with --threshold"
        bits = pixels > (_top(pixels, half) / 2 if threshold is None else threshold)
    elif method == "otsu":
        bits = np.stack([_otsu(image) for image in pixels])
    else:
        probabilities = _probabilities(pixels, method)
        indices = range(first_index, first_index + len(pixels))
        bits = _uniforms(seed, indices, pixels.shape[1:]) < probabilities
    return bits


def probability_levels(pixels: NDArray[Any]) -> Levels:
    """The probabilities that "dynamic" draws with, in steps of 1/255: uint8 of the shape of the pixels.

    Raises ConfigError if the values are no probabilities.
    """
    levels: Levels = np.round(255 * _probabilities(pixels, "dynamic")).astype(np.uint8)
    return levels


def draw_levels(levels: Levels, indices: Iterable[int], *, seed: int, draw: int = 0) -> Bits:
    """Bits that are on with probability level / 255: a function of (seed, draw, index of the image, level).

    Draw 0 is that of "bernoulli".
    """
    bits: Bits = _uniforms(seed, indices, levels.shape[1:], draw) < _LEVEL_PROBABILITIES[levels]
    return bits


def _probabilities(pixels: NDArray[Any], method: str) -> NDArray[np.float64]:
    top = _top(pixels, f"{method} takes floats in [0, 1], or 8 or 16 bits")
    probabilities: NDArray[np.float64] = pixels.astype(np.float64) / top
    if ((probabilities < 0) | (probabilities > 1)).any():
        raise ConfigError(f"{method} takes values as probabilities, but some are below 0 or above 1")
    return probabilities


def _top(pixels: NDArray[Any], advice: str) -> float:
    """The greatest value of the type's usual range."""
    if pixels.dtype.kind != "f" and pixels.dtype.name not in _TOP:
        raise ConfigError(f"values of type {pixels.dtype} have no usual range; {advice}")
    return _TOP.get(pixels.dtype.name, 1.0)


def _otsu(image: NDArray[Any]) -> Bits:
    """On where a value is in the upper of the two classes that Otsu's method parts the image into (Otsu 1979).

    An image of one value has no two classes: it is on where that is not zero.
    """
    low, high = image.min(), image.max()
    if low == high:
        return np.asarray(image != 0)
    limits = (0.0, float(_BINS)) if image.dtype == np.uint8 else (float(low), float(high))
    values = image.astype(np.float64)
    counts, edges = np.histogram(values, _BINS, limits)
    centers = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum()[:-1]
    above = counts.sum() - below
    sums = (counts * centers).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return np.asarray(values >= edges[np.nanargmax(between) + 1])


def _uniforms(seed: int, indices: Iterable[int], shape: tuple[int, ...], draw: int = 0) -> NDArray[np.float64]:
    """Uniforms in [0, 1) for images of one shape: a function of (seed, draw, index)."""
    count = math.prod(shape)
    words = [np.random.Philox(key=seed, counter=[0, index, draw, 0]).random_raw(count) for index in indices]
    uniforms: NDArray[np.float64] = np.multiply(np.stack(words) >> np.uint64(11), 2.0**-53)
    return uniforms.reshape(-1, *shape)


def fit_to(bits: AnyBits, size: tuple[int, int], how: str) -> AnyBits:
    """Bits, or levels of probability, brought to (height, width).

    "pad" centers them among pixels that are off, and "crop" keeps their middle; "area" turns a pixel on if at
    least half of what it covers is on, and "max-pool" if any of it is, whatever the sides' ratio; of levels they
    are the mean and the greatest.
    Raises ValueError where "pad" would have to cut, or "crop" to pad.
    """
    if bits.shape[2:] == size:
        return bits
    images = torch.from_numpy(np.ascontiguousarray(bits))
    if how in {"max-pool", "area"}:
        pool = F.adaptive_max_pool2d if how == "max-pool" else F.adaptive_avg_pool2d
        pooled = pool(images.float(), size).numpy()
        return np.round(pooled).astype(np.uint8) if bits.dtype == np.uint8 else np.asarray(pooled >= 0.5)
    sign = 1 if how == "pad" else -1
    gaps = [sign * (new - old) for new, old in zip(size, bits.shape[2:], strict=True)]
    if min(gaps) < 0:
        own, wanted = ("x".join(map(str, shape)) for shape in (bits.shape[2:], size))
        raise ValueError(f"it is {own}, too {'large' if how == 'pad' else 'small'} to {how} to {wanted}")
    margins = [sign * margin for gap in reversed(gaps) for margin in (gap // 2, gap - gap // 2)]
    return np.asarray(F.pad(images, margins).numpy())
