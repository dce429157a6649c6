"""A user's images as bits: read, made binary, brought to one size and checked, some at a time."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.errors import DataError
from ..config.images import MAX_PIXELS, ImageOptions
from .binarize import AnyBits, binarize, fit_to, probability_levels
from .groups import Groups
from .readers.labels import NO_LABEL
from .readers.source import LEAST_ON, BadImages, ImageSource, RawImages

_GREY_SHARE = 0.01  # of the values that count as on

Labels = NDArray[np.int64]


class BinaryImages:
    """The images of one source, read once. Its counts and notes are complete when `chunks` has ended."""

    def __init__(self, source: ImageSource, options: ImageOptions, name: object) -> None:
        self.source = source
        self._options, self._method = options, options.binarize or "nonzero"
        self._top = 255 if self._method == "dynamic" else 1  # what a pixel that is always on counts
        self._name = name
        self._bad = BadImages()
        self._groups: list[Groups] = []
        self._shapes: Counter[tuple[int, ...]] = Counter()
        self._firsts: dict[tuple[int, ...], str] = {}
        self._on = np.zeros((), np.int64)
        self._grey, self._nonzero = 0, 0
        self._has_negative = False
        self._range: tuple[float, float] | None = None
        """The least and greatest value, as long as all pixels are alike."""

    @property
    def count(self) -> int:
        """Images read so far."""
        return sum(self._shapes.values())

    @property
    def groups(self) -> Groups | None:
        """The group of each image that `chunks` gave, int64 [N], where they are in groups."""
        return np.concatenate(self._groups) if self._groups else None

    @property
    def notes(self) -> list[str]:
        """What the user should know about how they were read."""
        notes = list(self.source.notes)
        if self._bad.count:
            notes.append(f"left out: {self._bad.text}")
        if self._method == "nonzero" and self._grey > _GREY_SHARE * self._nonzero:
            pixels, share = self._on.size * self.count, self._grey / self._nonzero
            notes.append(
                f"{self._grey / pixels:.1%} of the values are neither 0 nor 1 nor the greatest of their type, and "
                f"count as on ({share:.0%} of what is on); they may be shades, or noise as of JPEG: --binarize "
                "threshold or otsu parts them"
            )
        if self._method == "dynamic" and not self._grey:
            notes.append("no value is between the least and the greatest: every epoch draws the same images")
        return notes

    def chunks(self) -> Iterator[tuple[AnyBits, Labels | None]]:
        """All images in order as bits [n, C, H, W], and their labels; by "dynamic" as levels, see `draw_levels`.

        Raises DataError, after the last, if some cannot be read, shapes differ, all images are the same or nearly
        all pixels are.
        """
        for raw in self._small_chunks():
            kept, rows = self._without_bad_values(raw)
            if not len(kept.pixels):
                continue
            try:
                bits = self._as_bits(kept.pixels)
            except ValueError as error:
                self._bad.note(kept.name(), str(error), count=len(kept.pixels))
                continue
            if self._is_of_first_shape(bits, kept.name()):
                if self.source.groups is not None:
                    self._groups.append(self.source.groups[raw.first + rows])
                yield bits, kept.labels
        self._check()

    def _small_chunks(self) -> Iterator[RawImages]:
        """The source's chunks, cut so that their images take bounded memory at the size they are brought to."""
        rows = max(1, MAX_PIXELS // math.prod(self._options.height_and_width or (1, 1)))
        for raw in self.source.chunks(self._bad):
            for start in range(0, len(raw.pixels), rows):
                part = slice(start, start + rows)
                labels = None if raw.labels is None else raw.labels[part]
                yield replace(raw, pixels=raw.pixels[part], labels=labels, first=raw.first + start)

    def _as_bits(self, pixels: NDArray[Any]) -> AnyBits:
        options = self._options
        seed, first = options.bernoulli_seed, self.count
        bits: AnyBits
        if self._method == "dynamic":
            bits = probability_levels(pixels)
            self._grey += int(np.count_nonzero((bits > 0) & (bits < self._top)))
        else:
            bits = binarize(pixels, self._method, threshold=options.threshold, seed=seed, first_index=first)
        on = int(np.count_nonzero(bits))
        if self._method == "nonzero":
            self._grey += _grey_values(pixels)
            self._nonzero += on
            self._has_negative |= pixels.dtype.kind in "if" and bool((pixels < 0).any())
        if on in {0, bits.size}:
            self._note_range(pixels)
        if options.invert:
            bits = ~bits
        size, fit = options.height_and_width, options.fit
        return bits if size is None or fit is None else fit_to(bits, size, fit)

    def _note_range(self, pixels: NDArray[Any]) -> None:
        low, high = self._range or (np.inf, -np.inf)
        self._range = (min(low, float(pixels.min())), max(high, float(pixels.max())))

    def _without_bad_values(self, raw: RawImages) -> tuple[RawImages, NDArray[np.intp]]:
        """The images that can be used, and which they are."""
        faults = {}
        if raw.labels is not None:
            faults["it has no label"] = raw.labels == NO_LABEL
        if raw.pixels.dtype.kind == "f":
            faults["it holds NaN or infinite values"] = ~np.isfinite(raw.pixels).all(axis=(1, 2, 3))
        if not any(is_bad.any() for is_bad in faults.values()):
            return raw, np.arange(len(raw.pixels))
        is_good = np.ones(len(raw.pixels), bool)
        for reason, is_bad in faults.items():
            for row in np.flatnonzero(is_bad & is_good):
                self._bad.note(raw.name(int(row)), reason)
            is_good &= ~is_bad
        labels = None if raw.labels is None else raw.labels[is_good]
        return replace(raw, pixels=raw.pixels[is_good], labels=labels), np.flatnonzero(is_good)

    def _is_of_first_shape(self, bits: AnyBits, name: str) -> bool:
        shape = bits.shape[1:]
        self._firsts.setdefault(shape, name)
        self._shapes[shape] += len(bits)
        if shape != next(iter(self._firsts)):
            return False
        self._on = self._on + bits.sum(axis=0, dtype=np.int64)
        return True

    def _check(self) -> None:
        if self._bad.count and not self._options.skip_bad:
            advice = "; leave them out with --skip-bad" if self.count > 1 else ""
            raise DataError(f"{self._name}: {self._bad.text}{advice}")
        if len(self._shapes) > 1:
            shapes = ", ".join(
                f"{'x'.join(map(str, shape))} ({count:,}, the first {self._firsts[shape]})"
                for shape, count in self._shapes.most_common(3)
            )
            raise DataError(
                f"{self._name} has images of {len(self._shapes)} shapes: {shapes}; bring them to one "
                f"with --size and --fit, as in --size {self._usual_size()} --fit area"
            )
        if self.count < 2:
            count = "only one image" if self.count else "no images"
            others = f"; {self._bad.text}" if self._bad.count else ""
            raise DataError(f"{self._name} has {count} to learn from{others}")
        self._check_variety()

    def _usual_size(self) -> str:
        ((_, height, width), _), *_ = self._shapes.most_common(1)
        return f"{height}x{width}"

    def _check_variety(self) -> None:
        always = self._top * self.count
        fraction = float(self._on.sum() / (self._on.size * always))
        how = f"as {self._method}{', inverted,' if self._options.invert else ''} takes them"
        if fraction in {0, 1}:
            problem = f"every pixel is {'on' if fraction else 'off'} {how}"
        elif np.isin(self._on, (0, always)).all():
            problem = f"all {self.count:,} images are the same {how}"
        elif fraction < LEAST_ON:
            problem = f"only {fraction:.3%} of the pixels are on {how}, less than {LEAST_ON:.1%}"
        elif fraction > 1 - LEAST_ON:
            problem = f"{fraction:.3%} of the pixels are on {how}, more than {1 - LEAST_ON:.1%}"
        else:
            return
        notes = f" ({'; '.join(self.source.notes)})" if self.source.notes else ""
        raise DataError(f"{self._name}: {problem}; {self._advice(fraction)}{notes}")

    def _advice(self, fraction: float) -> str:
        """What makes images of which there is too little of one value."""
        low, high = self._range or (0, 0)
        if fraction in {0, 1} and low < high:
            middle = (low + high) / 2
            return (
                f"the values are from {low:g} to {high:g}: --binarize threshold --threshold {middle:g} parts them"
            )
        if self._has_negative:
            return "some values are negative: --binarize threshold --threshold 0"
        if fraction in {0, 1} and self._range is not None:
            return f"every value is {low:g}; of image files --channels alpha takes what is transparent"
        if self._options.fit == "area" and fraction < LEAST_ON:
            return "--fit max-pool keeps thin lines"
        return "are these the images that were meant? --binarize and --threshold say what is on"


def _grey_values(pixels: NDArray[Any]) -> int:
    """How many values are neither 0 nor 1 nor the greatest of an integer type of 8 or 16 bits."""
    if pixels.dtype.kind == "b":
        return 0
    usual = (pixels == 0) | (pixels == 1)
    if pixels.dtype.kind == "u":
        usual |= pixels == np.iinfo(pixels.dtype).max
    return int(pixels.size - np.count_nonzero(usual))


def settled_labels(
    parts: Sequence[Labels], classes: tuple[str, ...] | None
) -> tuple[Labels | None, tuple[str, ...] | None]:
    """Labels from 0 without gaps, and their names; a label without one is named by its number."""
    if not parts:
        return None, None
    values, labels = np.unique(np.concatenate(parts), return_inverse=True)
    names = tuple(str(value) if classes is None else classes[value] for value in values)
    return labels.astype(np.int64), names
