"""--json, as every command has it: bare it prints, with a file it writes there."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="[FILE]", help="Print JSON instead, or write it to this file.", show_default=False
    ),
]


def wrote_json(content: Any, file: Path | None) -> bool:
    """Write JSON to a file, if one is named; True where "-" printed it, in place of all else. Raises OSError."""
    if file is None:
        return False
    text = json.dumps(content, indent=2, allow_nan=False)
    if str(file) == "-":
        typer.echo(text)
        return True
    file.write_text(f"{text}\n", "utf-8")
    return False
