"""The shape of an image, for layers without torch too."""

from typing import NamedTuple


class ImageShape(NamedTuple):
    """The shape of one image, in pixels."""

    channels: int
    height: int
    width: int
