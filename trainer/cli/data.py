"""`bgan data`: the command and its table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..common.errors import ConfigError
from ..config.images import DatasetSpec, ImageOptions
from .options import given_settings, named_images, with_settings, writable, wrote_json

if TYPE_CHECKING:
    from .. import DataSummary

_CLASSES_SHOWN = 12
_NAME_AT_MOST = 100  # characters


@with_settings({"Data": DatasetSpec, "How images are read": ImageOptions}, without="data")
def data(
    context: typer.Context,
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A file or folder of images: .npy, .npz, idx, .amat, .mat, .h5, .parquet, or images in a folder "
            "or zip.",
            show_default=False,
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Draw samples and the mean image into this PNG file.", show_default=False, callback=writable
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="Write the figures as JSON to this file; - prints it.",
            show_default=False,
            callback=writable,
        ),
    ] = None,
    **_: Any,
) -> None:
    """`bgan train --data` takes the same options.

    The command fails where nothing can be learned: images that cannot be read, differ in shape or are all the
    same, or nearly all pixels on or off.

    Examples: bgan data masks.zip --size 32x32 --fit area --picture masks.png;  bgan data --dataset omniglot
    """
    from rich.console import Console

    from .. import draw_summary, open_dataset, summarize
    from ..common.console import counting_bar
    from ..common.files import write_atomically

    given = given_settings(context) | ({} if path is None else {"data": path})
    choice = named_images(given)
    if choice is None:
        raise ConfigError("name a file or folder of images, or a data set with --dataset")
    with counting_bar(Console(stderr=True), f"converting {choice.path}") as progress:
        summary = summarize(open_dataset(choice, split="all", progress=progress))
    if picture is not None:
        write_atomically(picture, draw_summary(summary))
    if not wrote_json(summary.to_dict(), json_file):
        _print(summary)


def _print(summary: DataSummary) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..common.console import say

    table = Table(title=summary.name, show_header=False)
    pixels = summary.mean.size
    table.add_row("images", f"{summary.count:,}")
    table.add_row("channels x rows x columns", "x".join(map(str, summary.image_shape)))
    table.add_row("pixels that are on", f"{summary.on_fraction:.2%}")
    table.add_row("pixels off in all images", f"{summary.always_off:,} of {pixels:,}")
    table.add_row("pixels on in all images", f"{summary.always_on:,} of {pixels:,}")
    table.add_row("copies of other images", f"{summary.duplicates:,}")
    table.add_row("classes", _listed(summary.classes))
    console = Console()
    console.print(table)
    for warning in summary.warnings:
        say(console, f"warning: {warning}")


def _listed(classes: dict[str, int] | None) -> str:
    from rich.markup import escape

    from ..common.text import printable

    if classes is None:
        return "no labels"
    shown = [
        f"{escape(printable(name, _NAME_AT_MOST))} {count:,}"
        for name, count in list(classes.items())[:_CLASSES_SHOWN]
    ]
    more = f", ... ({len(classes):,} classes)" if len(classes) > _CLASSES_SHOWN else ""
    return ", ".join(shown) + more
