"""The commands that run a model, as a table; `commands` has them, and is loaded when one is called."""

from __future__ import annotations

from importlib import import_module
from inspect import getdoc

import typer

_MODULE = "bgan.serving.cli.commands"
COMMANDS = {
    "serve": ("Serve", "Stream binary images from models over gRPC until SIGTERM or Ctrl-C.", f"{_MODULE}:serve"),
    "health": ("Serve", "Ask a server for its health; exit with 0, or 1 and the reason.", f"{_MODULE}:health"),
    "top": ("Serve", "Watch a running server: its images per second, queue and models.", f"{_MODULE}:top"),
    "token": ("Serve", "Make a token for a caller and print it.", f"{_MODULE}:token"),
    "generate": ("Sample", "Generate images into a file, as a server would stream them.", f"{_MODULE}:generate"),
}
"""By name of the command: its panel in `bgan --help`, its summary and its function."""


def register(app: typer.Typer) -> None:
    """Add the commands that run a model."""
    for name, (panel, summary, target) in COMMANDS.items():
        module, _, function = target.partition(":")
        command = getattr(import_module(module), function)
        app.command(name, rich_help_panel=panel, help=f"{summary}\n\n{getdoc(command)}")(command)
