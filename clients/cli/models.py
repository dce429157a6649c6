"""`bgan models`: the command, its table and its JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from .._text import printable
from .connection import DEFAULT_SERVER, Security, check_timeout, with_security_options

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from .._types import ModelInfo, ModelList

_WIDEST = 10_000
_MAX_CELL = 100  # signs of a column; names may have 128


@with_security_options
def models(
    server: Annotated[str, Option(help="The server's address.", envvar="BGAN_SERVER")] = DEFAULT_SERVER,
    timeout: Annotated[
        float,
        Option(
            help="Seconds that it may take, retries included; inf: any.",
            envvar="BGAN_TIMEOUT",
            callback=check_timeout,
        ),
    ] = 10.0,
    json_file: Annotated[
        Path | None,
        Option(
            "--json", metavar="[FILE]", help="Print JSON instead, or write it to this file.", show_default=False
        ),
    ] = None,
    *,
    security: Security,
) -> None:
    """A * marks the default model.

    Examples: bgan models --server localhost:50051;  bgan models --json
    """
    with security.connect([server], timeout) as client:
        listed = client.list_models()
    text = json.dumps(_as_json(listed, server), indent=2, allow_nan=False)
    if json_file is not None and str(json_file) == "-":
        typer.echo(text)
        return
    if json_file is not None:
        json_file.write_text(f"{text}\n", "utf-8")
    _print(listed, server)


def _as_json(listed: ModelList, server: str) -> dict[str, Any]:
    return {
        "server": server,
        "models": [_model_as_json(info) for info in listed],
        "failures": [asdict(failure) for failure in listed.failures],
        "limits": asdict(listed.limits),
    }


def _model_as_json(info: ModelInfo) -> dict[str, Any]:
    metrics = {name: value if math.isfinite(value) else None for name, value in info.metrics.items()}
    return {**asdict(info), "metrics": metrics}


def _print(listed: ModelList, server: str) -> None:
    from rich.console import Console
    from rich.measure import Measurement
    from rich.text import Text  # neither markup nor emoji, whatever it says

    console, notes = Console(), Console(stderr=True)
    cells = _cells_of(listed)
    shown: RenderableType = _table_of(listed, cells)
    width = Measurement.get(console, console.options.update(max_width=_WIDEST), shown).maximum
    if console.is_terminal and width > console.width:
        shown = _blocks_of(listed, cells)
    else:  # a file or a pipe takes lines of any length
        console = Console(width=max(width, console.width))
    notes.print(f"models of {printable(server)}; * is the default", markup=False, highlight=False, soft_wrap=True)
    console.print(shown, soft_wrap=True)
    for failure in listed.failures:
        text = f"{printable(failure.model)} cannot be served: {printable(failure.reason)}"
        notes.print(Text(text, style="red"), soft_wrap=True)


def _cells_of(infos: ModelList) -> dict[str, list[str]]:
    """What there is to say of each model, by heading, without headings that no model has anything of."""
    columns = {
        "version": ["" if info.version is None else str(info.version) for info in infos],
        "neuron": [info.neuron for info in infos],
        "network": [info.network for info in infos],
        "arithmetic": [info.arithmetic for info in infos],
        "shape": ["x".join(map(str, info.image_shape)) for info in infos],
        "classes": [str(len(info.classes) or "") for info in infos],
        "active parts": [_active_parts(info) for info in infos],
        "data": [info.dataset for info in infos],
        "epoch": [str(info.epoch) for info in infos],
        "revision": [info.revision[:8] for info in infos],
    }
    return {
        heading: [printable(cell, _MAX_CELL) for cell in cells] for heading, cells in columns.items() if any(cells)
    }


def _active_parts(info: ModelInfo) -> str:
    """How many of its parts run for an image in the mean, for models that do not run all of them."""
    if info.mean_active_share is None:
        return ""
    return f"{info.mean_active_share * info.part_count:.3g} of {info.part_count}"


def _table_of(infos: ModelList, cells: dict[str, list[str]]) -> Table:
    """A row for each model."""
    from rich.table import Column, Table
    from rich.text import Text  # not markup, whatever a model is called

    headings = ("", "model", *cells)
    table = Table(*(Column(each, no_wrap=True) for each in headings), box=None, padding=(0, 2, 0, 0))
    for info, *row in zip(infos, *cells.values(), strict=True):
        table.add_row("*" if info.is_default else "", *map(Text, (printable(info.name), *row)))
    return table


def _blocks_of(infos: ModelList, cells: dict[str, list[str]]) -> Text:
    """A paragraph for each model, for a terminal that the table does not fit."""
    from rich.text import Text

    lines = []
    for info, *row in zip(infos, *cells.values(), strict=True):
        words = [f"{heading} {cell}" for heading, cell in zip(cells, row, strict=True) if cell]
        lines += [f"{'*' if info.is_default else ' '} {printable(info.name)}", f"    {', '.join(words)}"]
    return Text("\n".join(lines))
