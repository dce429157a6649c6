"""`bgan doctor`: what a bug report needs, of every room."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import typer

from .options import JsonFile, wrote_json


def doctor(json_file: JsonFile = None) -> None:
    """Nothing is started, trained or downloaded, and no secret is shown.

    Examples: bgan doctor;  bgan doctor --json report.json
    """
    facts: dict[str, Any] = {}
    for entry_point in sorted(entry_points(group="bgan.commands"), key=lambda entry: entry.name, reverse=True):
        path = getattr(import_module(entry_point.module), "FACTS", None)
        if path is not None:
            module, _, name = path.partition(":")
            for title, content in getattr(import_module(module), name)().items():
                facts[title] = {**facts.get(title, {}), **content}
    if not wrote_json(facts, json_file):
        _print(facts)


def _print(facts: dict[str, dict[str, Any]]) -> None:
    for title, content in facts.items():
        typer.echo(f"{title}:")
        width = max(map(len, content), default=0)
        for name, value in content.items():
            typer.echo(f"  {name:{width}}  {_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return {None: "-", True: "yes", False: "no"}.get(value, str(value)) if not isinstance(value, str) else value
