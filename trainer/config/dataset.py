"""Which images: those of a data set by name, or of a file or folder."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from .images import ImageOptions
from .setting import check_settings, setting

DATASETS = (
    *("auto", "mnist", "digits", "fashion-mnist", "kmnist", "qmnist", "omniglot"),
    *(f"emnist-{part}" for part in ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSpec:
    """What a set of binary images is made from."""

    dataset: str = setting(
        "Data set: mnist, digits (bundled, 8x8 upscaled), fashion-mnist, kmnist, qmnist, omniglot, "
        "emnist-letters, ...; auto is mnist if it is available, else digits.",
        "auto",
        suggestions=DATASETS,
    )
    """The name of the data set; for a file or folder any name, see `name_of`."""
    path: str | None = setting(
        "A file or folder of your own images, not --dataset: .npy, .npz, idx, .mat, .h5, .parquet, or "
        "image files in a folder or a zip.",
        None,
        name="data",
    )
    """The file or folder; None: a data set by name."""
    data_dir: str | None = setting(
        "Folder where data sets by name are kept or downloaded to.", None, shown_default="data"
    )
    digest: str | None = setting(
        "SHA-256 that the images of --data must have.", None, name="data_digest", is_option=False
    )
    options: ImageOptions = field(default_factory=ImageOptions)

    def __post_init__(self) -> None:
        """Check every value."""
        check_settings(self)


def name_of(path: Path) -> str:
    """What a file or folder is called in names of runs and models: its own name, without its suffix."""
    name = path.name if path.is_dir() else path.name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:64] or "images"
