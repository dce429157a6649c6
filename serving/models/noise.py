"""Noise layouts 1 to 3: the latents, uniforms and label of image i of a seed, as a pure function.

The words are those of numpy's Philox (4x64, 10 rounds; Salmon et al. 2011) with the seed as its key.
Image i starts at counter i * K, where one counter is four 64-bit words and K counters are what one
image needs. Its words hold the latents first, 16 bits each, the low bits of a word first, padded to a
whole word: latent = Q[k], the normal quantile of (k + 1/2) / 65536 in float32. Then, for Bernoulli
binarization, the uniforms, 32 bits each, the low half first: uniform = (half >> 8) * 2^-24, padded to a
whole word too. Then, for a model of C classes, one word for the label: label = ((word mod 2^32) * C) >> 32. It is
there whether the caller names labels or not, so the rest of an image's noise does not depend on that.

Layout 2 is that of models which know how many images each class had, c_0 to c_(C-1), N in all: the label is that
of image n = ((word mod 2^32) * N) >> 32 if images are laid out by class, the smallest l with n < c_0 + ... + c_l.
All else is as in layout 1.

Layout 3 is that of models whose inner neurons, gates or hidden ones, are stochastic. Their uniforms follow all of
the above from a new word on: 32 bits each, as those of binarization, padded to a whole word. The label is as in
layout 2 where there are class counts, and as in layout 1 where there are none.

No libm call is in it, so every machine and language gets the same floats.
"""

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import StartError

CLASS_COUNTS = range(1, 2**32)
"""How many images the classes of a model may have in all."""
INDEX_END = 2**63 - 1
"""Where the indices of every stream end, and the largest seed."""
QUANTILES_SHA256 = "1cfbba1e07e34386a57626f82aeb43e6ed54ba70a3ea6b7d964dc66a841074a8"
_WORDS_PER_COUNTER = 4
_LATENTS_PER_WORD = 4
_UNIFORMS_PER_WORD = 2
_WORD_MASK = 2**64 - 1
_HALF_MASK = 2**32 - 1

# 112 kB: a buffer of this size comes from the heap, a larger one from the kernel each time
_WORDS_AT_ONCE = 14_000

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ImageRange:
    """Consecutive images of one seed."""

    seed: int
    """0 to 2^63 - 1."""
    first_index: int
    """The index of the first, 0 to 2^63 - 1."""
    count: int
    """How many, at least 1."""
    labels: tuple[int, ...] = ()
    """Image i is of the class labels[i mod their number]; none: its class is drawn, where it has one."""

    def parts(self, most: int) -> "Iterator[ImageRange]":
        """The same images, one after the other, at most so many at a time."""
        end = self.first_index + self.count
        for first in range(self.first_index, end, most):
            yield ImageRange(self.seed, first, min(most, end - first), self.labels)


class Noise(NamedTuple):
    """The inputs of some images."""

    latents: Float32Array
    """[n, latent_size]."""
    uniforms: Float32Array | None
    """[n, uniform_count]; None where the model takes none."""
    labels: Int64Array | None
    """[n]; None where the model takes none."""
    inner: Float32Array | None
    """[n, inner_count], the uniforms of inner neurons; None where the model takes none."""

    def rows(self, first: int, count: int) -> "Noise":
        """The inputs of `count` of the images, or as many as there are from `first` on."""
        return Noise(*[None if each is None else each[first : first + count] for each in self])  # type: ignore[arg-type]

    def feeds(self, image_shape: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        """The same by the names of the graph's inputs, those that it takes; uniforms have the images' shape."""
        uniforms = None if self.uniforms is None else self.uniforms.reshape(-1, *image_shape)
        named = {
            "latents": self.latents,
            "uniforms": uniforms,
            "labels": self.labels,
            "inner_uniforms": self.inner,
        }
        return {name: values for name, values in named.items() if values is not None}


class NoiseLayout:
    """Where one model's latents, uniforms and label lie within the words of an image."""

    def __init__(
        self,
        latent_size: int,
        *,
        uniform_count: int = 0,
        class_count: int = 0,
        class_counts: Sequence[int] = (),
        inner_count: int = 0,
    ) -> None:
        """`class_counts`: how many images each class had, where that is known.

        `inner_count`: how many uniforms the inner neurons of an image take.
        """
        self.latent_size = latent_size
        self.uniform_count = uniform_count
        self.class_count = class_count
        self.inner_count = inner_count
        # Without counts each class has one image, which is what layout 1 says.
        self._class_ends = np.cumsum(class_counts or (1,) * class_count, dtype=np.uint64)
        self._latent_words = -(-latent_size // _LATENTS_PER_WORD)
        self._label_word = self._latent_words - (-uniform_count // _UNIFORMS_PER_WORD)
        self._inner_word = self._label_word + (1 if class_count else 0)
        words = self._inner_word - (-inner_count // _UNIFORMS_PER_WORD)
        self.counters_per_image = -(-words // _WORDS_PER_COUNTER)
        self._words_per_image = self.counters_per_image * _WORDS_PER_COUNTER
        self.images_at_once = max(1, _WORDS_AT_ONCE // self._words_per_image)
        """How many images' words are drawn at once; more of them cost as much each."""
        self._philox = _Philox()

    def draw(self, seed: int, first_index: int, count: int, labels: tuple[int, ...] = ()) -> Noise:
        """The noise of `count` images; `seed` and `first_index` lie between 0 and 2^63 - 1."""
        return self.draw_ranges([ImageRange(seed, first_index, count, labels)])

    def draw_ranges(self, ranges: Sequence[ImageRange]) -> Noise:
        """As `draw`, for several ranges, one after the other."""
        rows = sum(images.count for images in ranges)
        latents = np.empty((rows, self.latent_size), np.float32)
        uniforms = np.empty((rows, self.uniform_count), np.float32) if self.uniform_count else None
        labels = np.empty(rows, np.int64) if self.class_count else None
        inner = np.empty((rows, self.inner_count), np.float32) if self.inner_count else None
        row = 0
        for images, words in self._words(ranges):
            end = row + images.count
            halves = words[:, : self._latent_words].view("<u2")
            latents[row:end] = normal_quantiles().take(halves[:, : self.latent_size])
            if uniforms is not None:
                _write_uniforms(words[:, self._latent_words : self._label_word], uniforms[row:end])
            if labels is not None:
                labels[row:end] = self._labels(words) if not images.labels else _named_labels(images)
            if inner is not None:
                _write_uniforms(words[:, self._inner_word :], inner[row:end])
            row = end
        return Noise(latents, uniforms, labels, inner)

    def draw_labels(self, images: ImageRange) -> Int64Array:
        """The labels [count] that `draw` gives these images, without the rest of their noise."""
        if images.labels:
            return np.array(_named_labels(images), np.int64)
        return np.concatenate([self._labels(words) for _, words in self._words([images])]).astype(np.int64)

    def _words(self, ranges: Iterable[ImageRange]) -> Iterator[tuple[ImageRange, npt.NDArray[np.uint64]]]:
        """The words of all images, [n, words an image], for some of them at a time."""
        for images in ranges:
            for part in images.parts(self.images_at_once):
                counter = part.first_index * self.counters_per_image
                words = self._philox.words(part.seed, counter, part.count * self._words_per_image)
                yield part, words.reshape(part.count, -1)

    def _labels(self, words: npt.NDArray[np.uint64]) -> Int64Array:
        halves = words[:, self._label_word] & np.uint64(_HALF_MASK)
        images = (halves * self._class_ends[-1]) >> np.uint64(32)
        labels: Int64Array = np.searchsorted(self._class_ends, images, side="right").astype(np.int64, copy=False)
        return labels


def layout_number(class_counts: Sequence[int], inner_count: int = 0) -> int:
    """Which layout the noise of a model has."""
    if inner_count:
        return 3
    return 2 if class_counts else 1


def _write_uniforms(words: npt.NDArray[np.uint64], uniforms: Float32Array) -> None:
    """Write uniforms [n, count] from words [n, at least half as many], of which only the first are used."""
    # 24 bits fit a float32 exactly, and so does their product with a power of two. As signed
    # integers they are the same numbers, which CPUs without AVX-512 convert several times faster.
    halves = words.view("<u4")[:, : uniforms.shape[1]]
    uniforms[:] = (halves >> np.uint32(8)).view("<i4")
    uniforms *= np.float32(2**-24)


def _named_labels(images: ImageRange) -> list[int]:
    indices = range(images.first_index, images.first_index + images.count)
    return [images.labels[index % len(images.labels)] for index in indices]


class _Philox(threading.local):
    """Words of any (seed, counter), for each thread from a generator of its own.

    Setting a generator's state takes a tenth of making one.
    """

    def __init__(self) -> None:
        self._generator = np.random.Philox(key=0)
        self._key = np.zeros(2, np.uint64)
        self._counter = np.zeros(4, np.uint64)
        self._state: Any = {
            "bit_generator": "Philox",
            "state": {"counter": self._counter, "key": self._key},
            "buffer": np.zeros(_WORDS_PER_COUNTER, np.uint64),
            "buffer_pos": _WORDS_PER_COUNTER,  # the buffer is empty
            "has_uint32": 0,
            "uinteger": 0,
        }

    def words(self, seed: int, counter: int, count: int) -> npt.NDArray[np.uint64]:
        """`count` words from `counter` (below 2^128) on, in little-endian order."""
        self._key[0] = seed
        self._counter[0], self._counter[1] = counter & _WORD_MASK, counter >> 64
        self._generator.state = self._state
        return self._generator.random_raw(count).astype("<u8", copy=False)


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
