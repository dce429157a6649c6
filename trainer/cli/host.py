"""The Typer app of the `bgan` command, to which every room contributes its commands."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..common.text import printable

_HELP = """Train GANs whose generators output binary images, export them as ONNX, and stream samples over gRPC.

Start with: bgan serve, and bgan sample --output digits.png. For a model of your own: bgan train, bgan export."""
_MAX_MESSAGE = 2000
_CONTEXT = {"help_option_names": ["-h", "--help"]}


def build_app() -> typer.Typer:
    """The app with the commands of every room, none of which is imported."""
    app = typer.Typer(
        name="bgan",
        cls=_Group,
        help=_HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings=_CONTEXT,
    )
    app.callback()(_options)
    for entry_point in sorted(entry_points(group="bgan.commands"), key=lambda entry: entry.name, reverse=True):
        for name, (panel, summary, path) in entry_point.load().items():
            app.command(name, cls=_lazy(name, summary, path), help=summary, rich_help_panel=panel)(lambda: None)
    return app


class _Group(TyperGroup):
    """All commands. What their errors quote of the command line, such as names of files, commands no terminal."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _printable_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, context: Any) -> Any:
        with _printable_errors():
            return super().invoke(context)


@contextmanager
def _printable_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message"):  # of the command line
            error.message = printable(error.message or "", _MAX_MESSAGE)  # type: ignore[attr-defined]
        raise


def _lazy(name: str, summary: str, path: str) -> type[TyperCommand]:
    """A command that imports its function, or the Typer of its subcommands, "module:name", when it is called."""

    class LazyCommand(TyperCommand):
        def make_context(self, info_name: Any, args: list[str], *others: Any, **options: Any) -> Any:
            command = _load(name, summary, path)
            return command.make_context(info_name, _with_json_printed(args), *others, **options)

    return LazyCommand


def _with_json_printed(arguments: list[str]) -> list[str]:
    """The arguments; a --json that no file follows prints, as --json=- does."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    following = [*arguments[1:], "--"]
    return [
        "--json=-" if word == "--json" and place < end and next_.startswith("-") and next_ != "-" else word
        for place, (word, next_) in enumerate(zip(arguments, following, strict=False))
    ]


def _load(name: str, summary: str, path: str) -> Any:
    module, _, attribute = path.partition(":")
    function = getattr(import_module(module), attribute)
    if isinstance(function, typer.Typer):
        return _subcommands(function, summary)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    help_text = f"{summary}\n\n{_unwrapped(function.__doc__ or '')}"
    app.command(name, help=help_text, context_settings=_CONTEXT)(function)
    return _opening_files_itself(typer.main.get_command(app))


def _opening_files_itself(command: Any) -> Any:
    """The command; a file that this user may not read is a failure of it (1), not a usage error (2) of Typer."""
    for parameter in command.params:
        of_new_typer = getattr(parameter, "type_descriptor", None)
        checks: Any = getattr(parameter, "type", None) if of_new_typer is None else of_new_typer.parameter_info
        if hasattr(checks, "readable"):
            checks.readable = False
    return command


def _subcommands(app: typer.Typer, summary: str) -> Any:
    """A command of several, each with its help as other commands have it."""
    for each in app.registered_commands:
        first, _, rest = inspect.cleandoc(getattr(each.callback, "__doc__", None) or "").partition("\n\n")
        each.help, each.context_settings = f"{first}\n\n{_unwrapped(rest)}", _CONTEXT
    app.info.help, app.info.context_settings = summary, _CONTEXT
    group: Any = typer.main.get_command(app)
    for command in group.commands.values():
        _opening_files_itself(command)
    return group


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
