"""`bgan export`: the command."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .options import BinarizationName, RunName, RunsDir, warn


def export(
    run: RunName = None,
    models: Annotated[Path, typer.Option(help="The folder of models to serve, which gets the file too.")] = Path(
        "models"
    ),
    name: Annotated[str | None, typer.Option(help="The model's name.", show_default="the run's name")] = None,
    binarization: BinarizationName = None,
    graph: Annotated[
        str, typer.Option(help="fast, or plain: a CNN's transposed convolutions as they were trained.")
    ] = "fast",
    arithmetic: Annotated[
        str, typer.Option(help="float, or integer: the same bits on every machine, from a smaller file.")
    ] = "float",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model of that name, though it is of another run.")
    ] = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """The file is checked against torch before it is written.

    Examples: bgan export;  bgan export mnist-mlp-real-wgan-gp-seed0 --binarization bernoulli
    """
    from ..export.exporter import export_run
    from ..training.run import find_run

    found = find_run(run, runs_dir)
    result = export_run(
        found,
        models,
        name=name,
        binarization=binarization,
        graph=graph,
        arithmetic=arithmetic,
        overwrite=overwrite,
        warn=warn,
    )
    differing = f"{result.differing_bits} of {result.bits} bits differ"
    if arithmetic == "integer":
        finding = f"every bit is that of numpy's integers; {differing} from torch's floats"
    else:
        finding = f"probabilities within {result.largest_error:.1e} of torch in double precision, {differing}"
    typer.echo(
        f"{result.path}\nchecked on {result.rows} rows: {finding}\n"
        f"next: {shlex.join(['bgan', 'serve', '--models', str(models)])}"
    )
