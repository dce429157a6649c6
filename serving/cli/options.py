"""Options: those that follow from settings, and those that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ..config.descriptions import SETTINGS, Setting

_Command = TypeVar("_Command", bound=Callable[..., None])

ConfigFile = Annotated[
    Path | None, typer.Option(help="A TOML file of settings, as --print-config writes it.", envvar="BGAN_CONFIG")
]
Tls = Annotated[bool, typer.Option("--tls", help="Use TLS and trust the public authorities.")]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        help="Use TLS and trust the authorities in this PEM file.",
        envvar="BGAN_TLS_CA",
        show_default="the public ones; of the local server any certificate",
    ),
]
TlsCertificate = Annotated[
    Path | None, typer.Option(help="Use TLS and show this certificate, a PEM file.", show_default="none")
]
TlsKey = Annotated[Path | None, typer.Option(help="The certificate's private key.", show_default="none")]
TlsServerName = Annotated[
    str | None,
    typer.Option(help="The name to expect in the server's certificate.", show_default="that of the address"),
]
TokenFile = Annotated[
    Path | None, typer.Option(help="A file with the token to call with.", show_default="the variable BGAN_TOKEN")
]


def settings_options(command: _Command) -> _Command:
    """Give a command one option per setting in place of its `**options`; one that is not given is None.

    Values are checked where settings are resolved, so that all sources have the same messages.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
    parameters = [*map(_parameter, SETTINGS.values()), *own]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def _parameter(setting: Setting) -> Parameter:
    option: Any = typer.Option(
        f"{setting.option}/--no-{setting.option[2:]}" if setting.kind is bool else setting.option,
        help=setting.help,
        metavar=setting.metavar,
        show_default=setting.default,
        rich_help_panel=setting.panel,
        autocompletion=lambda incomplete: [each for each in setting.choices if each.startswith(incomplete)],
    )
    kind: Any = setting.kind
    return Parameter(setting.name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option])
