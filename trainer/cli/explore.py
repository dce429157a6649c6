"""`bgan explore`: the command."""

from pathlib import Path
from typing import Annotated

import typer

from .options import DataDir, DeviceName, RunsDir, warn


def explore(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN|MODEL", help="A run's name or folder, or a model (.onnx).", show_default="the newest run"
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="Latents per picture.", min=2, max=16)] = 8,
    steps: Annotated[int, typer.Option(help="Images from one latent to the next.", min=3, max=25)] = 11,
    draws: Annotated[int, typer.Option(help="Stochastic draws per latent.", min=1, max=12)] = 8,
    nearest: Annotated[
        bool, typer.Option("--nearest/--no-nearest", help="Search a data set for the nearest training images.")
    ] = True,
    dataset: Annotated[
        str | None, typer.Option(help="Data set to search.", show_default="the source's own")
    ] = None,
    data_dir: DataDir = None,
    seed: Annotated[
        int, typer.Option(help="Seed of latents and noise; the same seed gives the same bytes.", min=0)
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the page and its pictures.",
            show_default="exploration in the run's folder, or exploration/MODEL",
        ),
    ] = None,
    device: DeviceName = "auto",
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Draw what a generator has learned: one page to look at, offline, and its pictures as PNG.

    The same latents under deterministic and stochastic neurons, their probabilities and where those are near
    0.5, a walk from each latent to the next, and the training images nearest to generated ones.

    Examples: bgan explore;  bgan explore models/digits.onnx --seed 3 --output digits
    """
    from rich.console import Console

    from .. import explore as draw
    from .. import open_generator, resolve_device
    from ..common.console import progress_line

    with progress_line(Console(stderr=True)) as report:
        found = draw(
            open_generator(source, runs_dir, warn, resolve_device(device)),
            output,
            images=images,
            steps=steps,
            draws=draws,
            nearest=nearest,
            dataset=dataset,
            data_dir=str(data_dir) if data_dir else None,
            seed=seed,
            report=report,
        )
    pictures = ", ".join(picture.stem for picture in found.pictures)
    typer.echo(f"{found.page}\npictures next to it: {pictures} (.png)")
