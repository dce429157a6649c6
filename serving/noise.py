"""Noise layout 1: the latents and uniforms of image i of a seed, as a pure function.

The words are those of numpy's Philox (4x64, 10 rounds; Salmon et al. 2011) with the seed as its key.
Image i starts at counter i * K, where one counter is four 64-bit words and K counters are what one
image needs. Its words hold the latents first, 16 bits each, the low bits of a word first, padded to a
whole word: latent = Q[k], the normal quantile of (k + 1/2) / 65536 in float32. Then, for Bernoulli
binarization, the uniforms, 32 bits each, the low half first: uniform = (half >> 8) * 2^-24.

No libm call is in it, so every machine and language gets the same floats.
"""

from __future__ import annotations

import hashlib
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from .errors import StartError

NOISE_LAYOUT = 1
QUANTILES_SHA256 = "1cfbba1e07e34386a57626f82aeb43e6ed54ba70a3ea6b7d964dc66a841074a8"
_WORDS_PER_COUNTER = 4
_LATENTS_PER_WORD = 4
_UNIFORMS_PER_WORD = 2

Float32Array = npt.NDArray[np.float32]


class NoiseLayout:
    """Where one model's latents and uniforms lie within the words of an image."""

    def __init__(self, *, latent_size: int, uniform_count: int = 0) -> None:
        self.latent_size = latent_size
        self.uniform_count = uniform_count
        self._latent_words = -(-latent_size // _LATENTS_PER_WORD)
        self._uniform_words = -(-uniform_count // _UNIFORMS_PER_WORD)
        self.counters_per_image = -(-(self._latent_words + self._uniform_words) // _WORDS_PER_COUNTER)

    def draw(self, seed: int, first_index: int, count: int) -> tuple[Float32Array, Float32Array | None]:
        """Latents [count, latent_size] and uniforms [count, uniform_count] (None where the model takes none).

        `seed` and `first_index` lie between 0 and 2^63 - 1.
        """
        counters = self.counters_per_image
        generator = np.random.Philox(key=seed, counter=first_index * counters)
        words = generator.random_raw(count * counters * _WORDS_PER_COUNTER)
        words = words.astype("<u8", copy=False).reshape(count, -1)
        latents = normal_quantiles()[words[:, : self._latent_words].view("<u2")[:, : self.latent_size]]
        if not self.uniform_count:
            return latents, None
        halves = words[:, self._latent_words : self._latent_words + self._uniform_words].view("<u4")
        return latents, _uniforms(halves[:, : self.uniform_count])


@cache
def normal_quantiles() -> Float32Array:
    """The table Q, float32 [65536]. Raises StartError if this machine computes it with other bits."""
    distribution = NormalDist()
    upper = np.array([distribution.inv_cdf((k + 0.5) / 65536) for k in range(32768, 65536)], dtype="<f4")
    table = np.concatenate([-upper[::-1], upper])
    if hashlib.sha256(table.tobytes()).hexdigest() != QUANTILES_SHA256:
        raise StartError("this machine's arithmetic gives another table of normal quantiles; streams would differ")
    table.setflags(write=False)
    return table


def _uniforms(halves: npt.NDArray[np.uint32]) -> Float32Array:
    # 24 bits fit a float32 exactly, and so does their product with a power of two.
    uniforms = (halves >> np.uint32(8)).astype(np.float32)
    uniforms *= np.float32(2**-24)
    return uniforms
