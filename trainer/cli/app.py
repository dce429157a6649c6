"""The `bgan` command: hosts the app, to which every room contributes its commands."""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points, version
from typing import Annotated, Protocol, runtime_checkable

import typer

from .card import card
from .data import data as data_command
from .diagnose import diagnose_gradients
from .evaluate import evaluate
from .explore import explore
from .export import export
from .reproduce import reproduce
from .train import presets, train

_APP_HELP = """Train GANs whose generators output binary images, export them as ONNX, and stream samples over gRPC.

Start with: bgan serve, and bgan sample --output digits.png. Your own: bgan train, bgan export, and again."""


# Which extra brings a package that an import can find missing.
_EXTRAS = {
    "train": (
        "torch",
        "torchvision",
        "onnx",
        "onnxscript",
        "safetensors",
        "sklearn",
        "tensorboard",
        "scipy",
        "prdc",
        "matplotlib",
        "markdown_it",
    ),
    "data": ("h5py", "pyarrow"),
    "serve": ("onnxruntime", "grpc_health", "grpc_reflection", "pydantic_settings", "pydantic"),
}


@runtime_checkable
class _UserFacing(Protocol):
    """An error that is for the user to read; every room has its own tree of them."""

    exit_code: int


def main() -> None:
    """Run the command line; what is meant for the user is one line on stderr."""
    try:
        _build_app()()
    except ModuleNotFoundError as error:
        _fail(_missing_package(error), 1, error)
    except OSError as error:
        _fail(f"{error.filename or 'file system'}: {error.strerror or error}", 1, error)
    except Exception as error:
        if isinstance(error, _UserFacing):
            _fail(str(error), error.exit_code, error)
        _fail(f"internal error: {type(error).__name__}: {error}; BGAN_DEBUG=1 shows where", 70, error)


def register(app: typer.Typer) -> None:
    """Add the trainer's commands."""
    app.command(rich_help_panel="Train")(train)
    app.command("data", rich_help_panel="Train")(data_command)
    app.command(rich_help_panel="Train")(export)
    app.command(rich_help_panel="Train")(presets)
    app.command(rich_help_panel="Measure")(evaluate)
    app.command(rich_help_panel="Measure")(card)
    app.command(rich_help_panel="Measure")(diagnose_gradients)
    app.command(rich_help_panel="Measure")(explore)
    app.command(rich_help_panel="Measure")(reproduce)


def _build_app() -> typer.Typer:
    app = typer.Typer(
        name="bgan",
        help=_APP_HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for entry_point in sorted(entry_points(group="bgan.commands"), key=lambda entry: entry.name, reverse=True):
        entry_point.load()(app)
    return app


def _options(
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_version),
    ] = False,
) -> None:
    pass


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bgan {version('bgan')}")
        raise typer.Exit


def _missing_package(error: ModuleNotFoundError) -> str:
    package = (error.name or "").split(".")[0]
    extra = next((extra for extra, packages in _EXTRAS.items() if package in packages), None)
    if extra is None:
        return f"the package {package!r} is missing; install bgan anew"
    return f"this command needs the package {package!r}: pip install 'bgan[{extra}]'"


def _fail(message: str, exit_code: int, error: BaseException) -> None:
    if os.environ.get("BGAN_DEBUG"):
        raise error
    typer.secho(f"bgan: {message}", fg=typer.colors.RED, err=True)
    sys.exit(exit_code)
