"""Which images: those of a data set by name, or of a file or folder; and how they are read and made binary."""

import dataclasses
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ..common.errors import ConfigError
from .setting import SettingsGroup, fields_of, option, setting

DATASETS = (
    *("auto", "mnist", "digits", "fashion-mnist", "kmnist", "qmnist", "omniglot", "stacked-mnist"),
    *(f"emnist-{part}" for part in ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")),
)
Binarization = Literal["nonzero", "threshold", "otsu", "bernoulli", "dynamic"]
Fit = Literal["pad", "crop", "area", "max-pool"]
BINARIZATIONS: tuple[str, ...] = get_args(Binarization)
HELD_OUT_FILES = ("validation_data", "test_data")
"""Settings that name files of images beside those that are trained on."""
MAX_PIXELS = 4096 * 4096
"""Of one image, of all channels together: that of a network takes gigabytes already."""
_OF_FILES = ("reader", "key", "labels_key", "group_by", "row_shape", "axes", "channels", "skip_bad")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageOptions(SettingsGroup):
    """All options of reading images. Raises ConfigError where one is out of range."""

    reader: str | None = setting(
        "Read the images with a reader that an installed package adds by this name (docs/python.md).",
        None,
        shown_default="by their content",
    )
    key: str | None = setting(
        "The array or column that holds the images, where a file has several.", None, shown_default="images"
    )
    labels_key: str | None = setting(
        "The array or column that holds the labels.", None, shown_default="labels or label"
    )
    group_by: str | None = setting(
        "Hold images out by groups that belong together: the array or column that says which, folder for "
        "image files, or a regular expression for a part of their names, as in 'song(\\d+)'.",
        None,
    )
    row_shape: str | None = setting(
        "Unfold the last axis of an array, as in 28x28.", None, shown_default="a square"
    )
    axes: str | None = setting(
        "A letter for each axis of an array: N images, C channels, H rows, W columns; those of one "
        "letter are joined.",
        None,
        shown_default="NHW or NCHW",
    )
    channels: Literal["grey", "rgb", "alpha"] = setting(
        "What to take from image files: grey, rgb (three channels), or alpha (their opacity).", "grey"
    )
    binarize: Binarization | None = setting(
        "How values become 0 and 1: nonzero, threshold, otsu (per image), bernoulli (values are probabilities) or "
        "dynamic (as bernoulli, drawn anew for each epoch of training).",
        None,
        shown_default="nonzero; fashion-mnist: threshold 127",
    )
    threshold: float | None = setting(
        "Values above it are on, with --binarize threshold.", None, shown_default="half of the values' range"
    )
    bernoulli_seed: int = setting(
        "Seed of the draws of --binarize bernoulli, and of dynamic but for training.", 0, at_least=0, below=2**63
    )
    invert: bool = setting("Swap on and off, after binarizing and before resizing.", False)
    size: str | None = setting("Resize images, as in 28x28 (height x width).", None)
    fit: Fit | None = setting("How to resize: pad, crop, area or max-pool.", None)
    skip_bad: bool = setting("Leave out images that cannot be read, instead of stopping.", False)

    def __post_init__(self) -> None:
        """Check every value."""
        SettingsGroup.__post_init__(self)
        if self.threshold is not None and self.binarize != "threshold":
            raise ConfigError("threshold needs --binarize threshold")
        if (self.size is None) != (self.fit is None):
            raise ConfigError(
                f"size and fit go together: --size 28x28 --fit with one of {', '.join(get_args(Fit))}"
            )
        if self.axes is not None and not ({"N", "H", "W"} <= set(self.axes) <= set("NCHW")):
            raise ConfigError(f"axes is {self.axes!r}; give each axis a letter: N, C, H or W, as in NHWC")
        _lengths("size", self.size, counts=(2,))
        _lengths("row_shape", self.row_shape, counts=(2, 3))

    def check_for_pixels(self, name: str) -> None:
        """Raise ConfigError where an option is about files, for a data set that is chosen by name."""
        for given in self.changed():
            if given in _OF_FILES:
                raise ConfigError(f"{option(given)} goes with --data, not with the data set {name}")

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults, by name."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields_of(ImageOptions)}
        return {name: value for name, (value, default) in values.items() if value != default}

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        """The size to bring images to."""
        lengths = _lengths("size", self.size, counts=(2,))
        return None if lengths is None else (lengths[0], lengths[1])

    @property
    def row_lengths(self) -> tuple[int, ...] | None:
        """The shape that the last axis of an array is unfolded to."""
        return _lengths("row_shape", self.row_shape, counts=(2, 3))

    def to_dict(self) -> dict[str, Any]:
        """All options by name, ready for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSpec(SettingsGroup):
    """What a set of binary images is made from."""

    dataset: str = setting(
        "Data set: mnist, digits (bundled, 8x8 upscaled), fashion-mnist, kmnist, qmnist, omniglot, "
        "stacked-mnist, emnist-letters, ...; auto is mnist if it is available, else digits.",
        "auto",
        suggestions=DATASETS,
    )
    """The name of the data set; for a file or folder any name, see `name_of`."""
    path: str | None = setting(
        "A file or folder of your own images, not --dataset: .npy, .npz, idx, .amat, .mat, .h5, .parquet, or "
        "image files in a folder or a zip.",
        None,
        name="data",
    )
    """The file or folder; None: a data set by name."""
    data_dir: str | None = setting(
        "Folder where data sets by name are kept or downloaded to.", None, shown_default="data"
    )
    validation_images: int = setting(
        "Training images to hold out, those with the least SHA-256: `bgan evaluate --split validation` measures "
        "on them, so that the test images choose nothing.",
        0,
        at_least=0,
    )
    validation_data: str | None = setting(
        "A file or folder of images to measure on with `bgan evaluate --split validation`, beside --data.", None
    )
    test_data: str | None = setting(
        "A file or folder of test images, beside --data, which is then trained on as a whole.",
        None,
        shown_default="every seventh image of --data",
    )
    digest: str | None = setting(
        "SHA-256 that the images of --data must have.", None, name="data_digest", is_option=False
    )
    options: ImageOptions = field(default_factory=ImageOptions)

    def __post_init__(self) -> None:
        """Check every value, and that images are held out in one way."""
        SettingsGroup.__post_init__(self)
        if self.path is None and (self.validation_data or self.test_data):
            name = "validation-data" if self.validation_data else "test-data"
            raise ConfigError(f"{name} goes with --data, not with the data set {self.dataset}")
        if self.validation_data and self.validation_images:
            raise ConfigError("give either validation-data or validation-images")

    def part_at(self, path: str) -> "DatasetSpec":
        """The images at another path, read in the same way."""
        return DatasetSpec(dataset=name_of(Path(path)), path=path, options=self.options)


def name_of(path: Path) -> str:
    """What a file or folder is called in names of runs and models: its own name, without its suffix."""
    name = path.name if path.is_dir() else path.name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:64] or "images"


def _lengths(name: str, text: str | None, *, counts: tuple[int, ...]) -> tuple[int, ...] | None:
    if text is None:
        return None
    shape = (
        tuple(int(part) for part in text.split("x")) if re.fullmatch(r"[1-9]\d{0,4}(x[1-9]\d{0,4})+", text) else ()
    )
    if len(shape) not in counts:
        example = "28x28" if 3 not in counts else "28x28 or 3x28x28"
        raise ConfigError(f"{option(name)} is {text!r}; write it as {example}")
    if math.prod(shape) > MAX_PIXELS:
        raise ConfigError(f"{option(name)} is {text!r}; images may have {MAX_PIXELS:,} pixels, as 4096x4096 has")
    return shape
