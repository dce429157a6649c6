"""The commands that run a model; each module here has one, and is loaded when it is called."""

from __future__ import annotations

from importlib import import_module
from inspect import getdoc

import typer

COMMANDS = {
    "serve": (
        "Serve",
        "Stream binary images from exported models over gRPC, until SIGTERM or Ctrl-C.",
        "bgan.serving.cli.serve:serve",
    ),
    "health": (
        "Serve",
        "Ask a server whether it serves; exit with 0 if it does, else with 1 and the reason.",
        "bgan.serving.cli.health:health",
    ),
    "top": (
        "Serve",
        "Watch a running server: images per second, streams, queue, inference times, models and workers.",
        "bgan.serving.cli.top:top",
    ),
    "token": (
        "Serve",
        "Make a token for a caller and print it.",
        "bgan.serving.cli.token:token",
    ),
    "generate": (
        "Sample",
        "Generate binary images into a file without a server: the bits that a server would stream.",
        "bgan.serving.cli.generate:generate",
    ),
}
"""By name of the command: its panel in `bgan --help`, its summary, and its function."""


def register(app: typer.Typer) -> None:
    """Add the commands that run a model."""
    for name, (panel, summary, target) in COMMANDS.items():
        module, _, function = target.partition(":")
        command = getattr(import_module(module), function)
        app.command(name, rich_help_panel=panel, help=f"{summary}\n\n{getdoc(command)}")(command)
