"""Command-line options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunsDir = Annotated[Path, typer.Option(help="The folder that holds the runs.", envvar="BGAN_RUNS_DIR")]
DataDir = Annotated[
    Path | None, typer.Option(help="Where MNIST lies or goes.", envvar="BGAN_DATA_DIR", show_default="data")
]
