"""Command-line options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..common.errors import ConfigError
from ..config.dataset import DatasetSpec, name_of
from ..config.images import OPTION_NAMES, ImageOptions

_PANEL = "How images are read"

RunsDir = Annotated[Path, typer.Option(help="The folder that holds the runs.", envvar="BGAN_RUNS_DIR")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where data sets by name lie or go.", envvar="BGAN_DATA_DIR", show_default="data"),
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="A file or folder of your own images, in place of --dataset: .npy, .npz, idx, .mat, .h5, .parquet, "
        "image files in a folder or a zip.",
        show_default=False,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        help="The array or column of images, where a file has several.", show_default=False, rich_help_panel=_PANEL
    ),
]
LabelsKey = Annotated[
    str | None,
    typer.Option(help="The array or column of labels.", show_default="labels or label", rich_help_panel=_PANEL),
]
RowShape = Annotated[
    str | None,
    typer.Option(
        help="Unfold the last axis of an array, as to 28x28.", show_default=False, rich_help_panel=_PANEL
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        help="A letter for each axis of an array: N images, C channels, H rows, W columns; those of one letter "
        "are joined.",
        show_default="NHW or NCHW",
        rich_help_panel=_PANEL,
    ),
]
Channels = Annotated[
    str, typer.Option(help="Of image files: grey, rgb, or alpha, their opacity.", rich_help_panel=_PANEL)
]
Binarize = Annotated[
    str | None,
    typer.Option(
        help="nonzero, threshold, otsu (by image) or bernoulli (values as probabilities).",
        show_default="nonzero; fashion-mnist: threshold 127",
        rich_help_panel=_PANEL,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(help="Values above it are on.", show_default="half of the values' range", rich_help_panel=_PANEL),
]
BernoulliSeed = Annotated[int, typer.Option(help="Decides the draws of bernoulli.", rich_help_panel=_PANEL)]
Invert = Annotated[bool, typer.Option("--invert", help="Exchange on and off.", rich_help_panel=_PANEL)]
Size = Annotated[
    str | None,
    typer.Option(help="Bring images to this size, as in 28x28.", show_default=False, rich_help_panel=_PANEL),
]
Fit = Annotated[
    str | None,
    typer.Option(help="How: pad, crop, area or max-pool.", show_default=False, rich_help_panel=_PANEL),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out images that cannot be read.", rich_help_panel=_PANEL)
]


def image_options(context: typer.Context) -> ImageOptions:
    """The options of reading images that a command was given. Raises ConfigError where one is wrong."""
    return ImageOptions(**{name: value for name, value in context.params.items() if name in OPTION_NAMES})


def own_images(context: typer.Context, data: Path, data_dir: Path | None = None) -> DatasetSpec:
    """The choice of a file or folder. Raises ConfigError where a data set was named too."""
    given = context.get_parameter_source("dataset")
    if given is not None and given.name == "COMMANDLINE":
        raise ConfigError("dataset names a published set, and data a file or folder of your own: give one of them")
    path = data.absolute()
    return DatasetSpec(
        dataset=name_of(path),
        data=str(path),
        data_dir=str(data_dir) if data_dir else None,
        options=image_options(context),
    )
