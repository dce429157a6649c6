"""`bgan explore`: the command."""

from pathlib import Path
from typing import Annotated

import typer

from ..common.errors import UserError
from .options import DataDir, DeviceName, RunsDir, note, warn

PAGE = "exploration.html"


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

    from ..common.console import progress_line
    from ..common.files import write_atomically
    from ..evaluation.generator import open_generator
    from ..reports.exploration import explore as exploring
    from ..reports.exploration.page import build_page
    from ..reports.exploration.pictures import draw_pictures
    from ..training.trainer import resolve_device

    plan = exploring.ExplorationOptions(images=images, steps=steps, draws=draws, seed=seed)
    with progress_line(Console(stderr=True)) as report:
        generator = open_generator(source, runs_dir, warn, resolve_device(device))
        folder = output or generator.output
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not existing.is_dir():  # known before anything is computed
            raise UserError(f"output is {folder}, but {existing} is a file; name a folder")
        real = None
        if nearest:
            real = exploring.load_real_images(generator, dataset, str(data_dir) if data_dir else None, report)
        exploration = exploring.explore(generator, plan, real, report)
        report("drawing the pictures")
        pictures = draw_pictures(exploration)
    for picture in pictures:
        write_atomically(folder / f"{picture.name}.png", picture.png)
    write_atomically(folder / PAGE, build_page(exploration, pictures).encode())
    note(f"pictures next to it: {', '.join(picture.name for picture in pictures)} (.png)")
    typer.echo(folder / PAGE)
