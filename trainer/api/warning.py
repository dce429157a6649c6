"""Warnings of a library: Python's own, unless the caller wants the lines."""

import warnings
from collections.abc import Callable

Warn = Callable[[str], None]
"""Called with a line for all that is odd."""


def warn_usually(text: str) -> None:
    """Warn as Python does."""
    warnings.warn(text, stacklevel=3)
