"""The noise of seed 0's first images: noise layouts 1 to 3, which a model's stream has (docs/serving.md).

The server has its own; a test holds the two together. Seed 0 begins at the first of Philox's words, so here they
come in order.
"""

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.image_shape import ImageShape

_WORDS_PER_COUNTER = 4
_LATENTS_PER_WORD = 4
_UNIFORMS_PER_WORD = 2
_ROWS_AT_ONCE = 256
_PIXELS_AT_ONCE = 2**18


def first_noise(
    count: int,
    latent_size: int,
    image_shape: ImageShape,
    *,
    stochastic: bool,
    class_counts: Sequence[int] = (),
    inner_count: int = 0,
) -> Iterator[dict[str, NDArray[Any]]]:
    """The inputs of a model's graph for images 0 .. count - 1 of seed 0, for some of them at a time.

    `latents` are float32 [n, latent_size], `uniforms` of stochastic neurons float32 [n, *image_shape], `labels`
    where there are class counts int64 [n], `inner_uniforms` where there are any float32 [n, inner_count].
    """
    latent_words = -(-latent_size // _LATENTS_PER_WORD)
    uniforms = math.prod(image_shape) if stochastic else 0
    label_word = latent_words + -(-uniforms // _UNIFORMS_PER_WORD)
    inner_word = label_word + bool(class_counts)
    needed = inner_word - (-inner_count // _UNIFORMS_PER_WORD)
    words_per_image = -(-needed // _WORDS_PER_COUNTER) * _WORDS_PER_COUNTER
    at_once = max(1, min(_ROWS_AT_ONCE, _PIXELS_AT_ONCE // math.prod(image_shape)))
    ends, quantiles = np.cumsum(class_counts, dtype=np.uint64), _normal_quantiles()
    philox = np.random.Philox(key=0)
    for first in range(0, count, at_once):
        rows = min(at_once, count - first)
        words = philox.random_raw(rows * words_per_image).astype("<u8").reshape(rows, -1)
        inputs: dict[str, NDArray[Any]] = {
            "latents": quantiles[words[:, :latent_words].view("<u2")[:, :latent_size]]
        }
        if stochastic:
            inputs["uniforms"] = _uniforms(words[:, latent_words:label_word], uniforms).reshape(-1, *image_shape)
        if class_counts:
            images = ((words[:, label_word] & np.uint64(2**32 - 1)) * ends[-1]) >> np.uint64(32)
            inputs["labels"] = np.searchsorted(ends, images, side="right").astype(np.int64)
        if inner_count:
            inputs["inner_uniforms"] = _uniforms(words[:, inner_word:], inner_count)
        yield inputs


def _uniforms(words: NDArray[np.uint64], count: int) -> NDArray[np.float32]:
    """The first `count` uniforms, [n, count], of words, each of which has two."""
    halves = words.view("<u4")[:, :count]
    return ((halves >> 8) * np.float32(2**-24)).astype(np.float32)


def _normal_quantiles() -> NDArray[np.float32]:
    """The normal quantiles of (k + 1/2) / 65536."""
    distribution = NormalDist()
    upper = np.array([distribution.inv_cdf((k + 0.5) / 65536) for k in range(32768, 65536)], np.float32)
    return np.concatenate([-upper[::-1], upper])
