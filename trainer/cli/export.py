"""`bgan export`: the command."""

import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..common.stores import Store, is_url
from .options import BinarizationName, RunName, RunsDir, note, warn

if TYPE_CHECKING:
    from .. import ExportResult, Run


def export(
    run: RunName = None,
    models: Annotated[
        str,
        typer.Option(
            metavar="PATH|URL", help="The folder, or URL (s3://), of models to serve, which gets the file too."
        ),
    ] = "models",
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
    from .. import export as export_run
    from .. import find_run

    found = find_run(run, runs_dir)
    options: dict[str, Any] = {
        "name": name,
        "binarization": binarization,
        "graph": graph,
        "arithmetic": arithmetic,
        "overwrite": overwrite,
        "warn": warn,
    }
    if is_url(models):
        result, place = _export_to_store(found, Store(models), **options)
    else:
        result = export_run(found, Path(models), **options)
        place = str(result.path)
    differing = f"{result.differing_bits} of {result.bits} bits differ"
    if arithmetic == "integer":
        finding = f"every bit is that of numpy's integers; {differing} from torch's floats"
    else:
        finding = f"probabilities within {result.largest_error:.1e} of torch in double precision, {differing}"
    if result.parts:
        finding += f"; routed, the {result.parts} parts give the same bytes as masked"
    where = place.rpartition("/")[0] if is_url(models) else models
    rows = f"{result.rows} rows"
    if result.left_out:
        rows += f" (not on {result.left_out} more, where rounding decides an inner neuron)"
    note(f"checked on {rows}: {finding}\nnext: {shlex.join(['bgan', 'serve', '--models', where])}")
    typer.echo(place)


def _export_to_store(run: "Run", store: Store, *, name: str | None, **options: Any) -> "tuple[ExportResult, str]":
    """Export a run to a store; returns the URL too. A model that is there is looked at as one in a folder is."""
    from .. import export as export_run

    with TemporaryDirectory(prefix="bgan-export-") as temporary:
        folder = Path(temporary)
        with store.naming(folder):
            store.fetch(f"{name or run.name}.onnx", folder)
            result = export_run(run, folder, name=name, **options)
        return result, store.send(result.path, result.path.name)
