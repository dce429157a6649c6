"""Which images: those of a data set by name, or of a file or folder."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from .images import ImageOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSpec:
    """What a set of binary images is made from."""

    dataset: str
    """The name of the data set; for a file or folder any name, see `name_of`."""
    data: str | None = None
    """The file or folder; None: it is a data set by name."""
    data_dir: str | None = None
    """Where data sets by name lie or are downloaded to."""
    options: ImageOptions = field(default_factory=ImageOptions)
    """How the images are read and made binary."""
    digest: str | None = None
    """The digest that the images of `data` must have; None: any."""


def name_of(path: Path) -> str:
    """What a file or folder is called in names of runs and models: its own name, without its suffix."""
    name = path.name if path.is_dir() else path.name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:64] or "images"
