"""The `bgan` command: hosts the app, to which every room contributes its commands."""

from __future__ import annotations

import inspect
import io
import os
import re
import sys
from importlib import import_module
from importlib.metadata import entry_points, version
from typing import Annotated, Any, Protocol, runtime_checkable

import typer
from typer.core import TyperCommand

from ..common.text import printable

_HELP = """Train GANs whose generators output binary images, export them as ONNX, and stream samples over gRPC.

Start with: bgan serve, and bgan sample --output digits.png. For a model of your own: bgan train, bgan export."""
_MAX_MESSAGE = 2000
_CONTEXT = {"help_option_names": ["-h", "--help"]}
# Which extra brings a package that an import can find missing.
_EXTRAS = {
    "train": (
        *("torch", "torchvision", "onnx", "onnxscript", "safetensors", "sklearn", "tensorboard", "scipy", "prdc"),
        *("matplotlib", "markdown_it"),
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
    _settle_terminal()
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


def _settle_terminal() -> None:
    """Let nothing of the environment keep a line from being shown."""
    for name in ("COLUMNS", "LINES"):
        if not os.environ.get(name, "1").isdigit() or int(os.environ.get(name, "1")) == 0:
            del os.environ[name]  # rich takes 0 at its word, and prints nothing
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a locale may lack a model's letters


def _build_app() -> typer.Typer:
    app = typer.Typer(
        name="bgan", help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False, context_settings=_CONTEXT
    )
    app.callback()(_options)
    for entry_point in sorted(entry_points(group="bgan.commands"), key=lambda entry: entry.name, reverse=True):
        for name, (panel, summary, path) in entry_point.load().items():
            app.command(name, cls=_lazy(name, summary, path), help=summary, rich_help_panel=panel)(lambda: None)
    return app


def _lazy(name: str, summary: str, path: str) -> type[TyperCommand]:
    """A command that imports its function, "module:name", when it is called or completed."""

    class LazyCommand(TyperCommand):
        def make_context(self, *arguments: Any, **options: Any) -> Any:
            return _load(name, summary, path).make_context(*arguments, **options)

    return LazyCommand


def _load(name: str, summary: str, path: str) -> Any:
    module, _, attribute = path.partition(":")
    function = getattr(import_module(module), attribute)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    help_text = f"{summary}\n\n{_unwrapped(function.__doc__ or '')}"
    app.command(name, help=help_text, context_settings=_CONTEXT)(function)
    return typer.main.get_command(app)


def _unwrapped(docstring: str) -> str:
    """A docstring whose paragraphs a terminal of any width can wrap, with each of its examples on a line."""
    text = re.sub(r"(?<=\S)\n(?=\S)", " ", inspect.cleandoc(docstring))
    return re.sub(r"(?<=: )(?=bgan )|(?<=;) +(?=bgan )", "\n", text).replace(";\n", "\n").replace(": \n", ":\n")


def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_version)
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
        return f"the package {package!r} is missing; install bgan again"
    return f"this command needs the package {package!r}: pip install 'bgan[{extra}]'"


def _fail(message: str, exit_code: int, error: BaseException) -> None:
    if os.environ.get("BGAN_DEBUG"):
        raise error
    line = printable(message, _MAX_MESSAGE)  # it quotes files, folders and servers
    typer.secho(f"bgan: {line}", fg=typer.colors.RED, err=True)
    sys.exit(exit_code)
