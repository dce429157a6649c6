"""What `--augment` says: which maps images pass through before they are judged."""

import re
from dataclasses import dataclass

from ..common.errors import ConfigError

NO_AUGMENTATION = "none"
_PART = re.compile(r"translate(?::(?P<pixels>[1-9]\d{0,3}))?|hflip|vflip")


@dataclass(frozen=True, slots=True)
class AugmentChoice:
    """Which maps may happen to an image."""

    translate: bool
    pixels: int | None
    """By how many pixels at most, along each axis; None: an eighth of each side."""
    hflip: bool
    vflip: bool


def parse_augment(text: str) -> AugmentChoice | None:
    """What the text says: "none", or "translate", "translate:PIXELS", "hflip" and "vflip" joined by "+".

    None for "none". Raises ConfigError for anything else.
    """
    if text == NO_AUGMENTATION:
        return None
    parts = [_PART.fullmatch(part) for part in text.split("+")]
    names = [part[0].partition(":")[0] for part in parts if part is not None]
    if len(names) < len(parts) or len(set(names)) < len(names):
        raise ConfigError(
            f"augment is {text!r}; join some of translate (or translate:2, by up to so many pixels), hflip and "
            "vflip with +, or give none"
        )
    pixels = [int(part["pixels"]) for part in parts if part is not None and part["pixels"]]
    return AugmentChoice(
        "translate" in names, next(iter(pixels), None), hflip="hflip" in names, vflip="vflip" in names
    )
