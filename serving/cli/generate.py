"""bgan generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..config.default_models import WHICH_FOLDER, model_folder


def generate(
    model: Annotated[str, typer.Argument(help="An .onnx file, or the name of a model in the folder of models.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help=".npz: packed bits and their origin. .npy: uint8 [n, c, h, w]. .bits, .bin: packed bits alone, "
            "described in a .json beside them.",
        ),
    ],
    count: Annotated[int, typer.Option("--count", "-n", help="How many images.")] = 64,
    seed: Annotated[int | None, typer.Option(help="The stream's seed.", show_default="drawn")] = None,
    first_index: Annotated[int, typer.Option(help="The index of the first image in the stream.")] = 0,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="A class of a class-conditional model, by name or number; several take turns.",
            show_default="drawn, all alike",
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            help="The folder of models in which to look a name up.",
            envvar="BGAN_MODELS",
            show_default=WHICH_FOLDER,
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Cores to use.", show_default="all")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Run the same command again to resume a file that was interrupted. Memory does not grow with the count.

    Examples: bgan generate cnn-dbn --count 1000000 --seed 1 -o digits.npz;
    bgan generate models/digits.onnx -n 500000 --seed 1 --first-index 500000 -o second-half.bits
    """
    from rich.console import Console

    from ..generate.generate import GenerationRequest, open_model
    from ..generate.generate import generate as run

    request = GenerationRequest(
        output=output,
        count=count,
        seed=seed,
        first_index=first_index,
        labels=tuple(label or ()),
        overwrite=overwrite,
    )
    origin = run(open_model(model, models or model_folder()), request, Console(stderr=True), threads=threads)
    typer.echo(f"{output}: {count} images of {origin.model}, seed {origin.seed}, from index {first_index}")
