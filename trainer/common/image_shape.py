"""The shape of an image, which every layer names; it needs no torch."""

from __future__ import annotations

from typing import NamedTuple


class ImageShape(NamedTuple):
    """The shape of one image: channels, rows, columns."""

    channels: int
    height: int
    width: int
