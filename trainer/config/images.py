"""How images of one's own are read and made binary: every option, checked when it is made."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from ..common.errors import ConfigError
from .checks import check_choice

BINARIZATIONS = ("nonzero", "threshold", "otsu", "bernoulli")
FITS = ("pad", "crop", "area", "max-pool")
CHANNELS = ("grey", "rgb", "alpha")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageOptions:
    """All options of reading images. Raises ConfigError where one is out of range."""

    key: str | None = None
    """Which array of a file of several holds the images; None: the only one, or `images`."""
    labels_key: str | None = None
    """Which array or column holds the labels; None: `labels` or `label` where there is one."""
    row_shape: str | None = None
    """The shape to unfold the last axis of an array to, such as "28x28"; None: a square where it is [N, P]."""
    axes: str | None = None
    """A letter of NCHW for each axis of an array, such as "NHWC"; those of one letter are joined."""
    channels: str = "grey"
    """What is taken of image files: "grey", "rgb" (three channels) or "alpha" (their opacity)."""
    binarize: str | None = None
    """"nonzero", "threshold", "otsu" or "bernoulli"; None: the data set's own, or "nonzero"."""
    threshold: float | None = None
    """Values above it are on; None: half of the values' range. For "threshold" only."""
    bernoulli_seed: int = 0
    """Decides the draws of "bernoulli"."""
    invert: bool = False
    """Turn on what is off, and off what is on, after `binarize` and before `fit`."""
    size: str | None = None
    """The size to bring images to, such as "28x28" (height x width); None: they have one."""
    fit: str | None = None
    """How they are brought to it: "pad", "crop", "area" or "max-pool"."""
    skip_bad: bool = False
    """Leave out images that cannot be read, where one otherwise ends the reading."""

    def __post_init__(self) -> None:
        """Check every value."""
        check_choice("channels", self.channels, CHANNELS)
        for name, choices in (("binarize", BINARIZATIONS), ("fit", FITS)):
            if getattr(self, name) is not None:
                check_choice(name, getattr(self, name), choices)
        if self.threshold is not None and self.binarize != "threshold":
            raise ConfigError("threshold has a meaning for --binarize threshold only")
        if (self.size is None) != (self.fit is None):
            raise ConfigError(f"size and fit go together: --size 28x28 --fit with one of {', '.join(FITS)}")
        if not 0 <= self.bernoulli_seed < 2**63:
            raise ConfigError(f"bernoulli-seed is {self.bernoulli_seed}; it must lie between 0 and 2^63 - 1")
        if self.axes is not None and not ({"N", "H", "W"} <= set(self.axes) <= set("NCHW")):
            raise ConfigError(f"axes is {self.axes!r}; give each axis a letter: N, C, H or W, as in NHWC")
        _lengths("size", self.size, counts=(2,))
        _lengths("row_shape", self.row_shape, counts=(2, 3))

    def check_for_pixels(self, name: str) -> None:
        """Raise ConfigError where an option is of reading files, for a data set that is had by name."""
        usual = ImageOptions()
        for option in ("key", "labels_key", "row_shape", "axes", "channels", "skip_bad"):
            if getattr(self, option) != getattr(usual, option):
                raise ConfigError(f"{option.replace('_', '-')} goes with --data, not with the data set {name}")

    def changed(self) -> dict[str, Any]:
        """The options that were given, by name."""
        usual = ImageOptions().to_dict()
        return {name: value for name, value in self.to_dict().items() if value != usual[name]}

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        """The size to bring images to."""
        lengths = _lengths("size", self.size, counts=(2,))
        return None if lengths is None else (lengths[0], lengths[1])

    @property
    def row_lengths(self) -> tuple[int, ...] | None:
        """What the last axis of an array is unfolded to."""
        return _lengths("row_shape", self.row_shape, counts=(2, 3))

    def to_dict(self) -> dict[str, Any]:
        """All options by name, ready for JSON."""
        return dataclasses.asdict(self)


OPTION_NAMES = frozenset(field.name for field in dataclasses.fields(ImageOptions))


def _lengths(name: str, text: str | None, *, counts: tuple[int, ...]) -> tuple[int, ...] | None:
    if text is None:
        return None
    shape = (
        tuple(int(part) for part in text.split("x")) if re.fullmatch(r"[1-9]\d{0,4}(x[1-9]\d{0,4})+", text) else ()
    )
    if len(shape) not in counts:
        example = "28x28" if 3 not in counts else "28x28 or 3x28x28"
        raise ConfigError(f"{name.replace('_', '-')} is {text!r}; write it as {example}")
    return shape
