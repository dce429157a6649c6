"""`bgan token create`, `list` and `revoke`: the commands."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, BadParameter, Option
from typer.core import TyperGroup

from .json_output import JsonFile, wrote_json

_Name = Annotated[str, Argument(help="The caller's name: letters, digits and hyphens.")]
_Tokens = Annotated[
    Path, Option(help="The file of hashes, which bgan serve --tokens reads.", envvar="BGAN_TOKENS")
]


def _warn(text: str) -> None:
    typer.echo(f"warning: {text}; the old spelling goes with the next release", err=True)


class _Group(TyperGroup):
    """The commands; `bgan token NAME`, the spelling of the release before, is `bgan token create NAME`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            _warn("`bgan token NAME` is now `bgan token create NAME`")
            args = ["create", *args]
        return super().parse_args(ctx, args)


token = typer.Typer(cls=_Group, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@token.command()
def create(
    name: _Name,
    tokens: _Tokens,
    model: Annotated[
        list[str] | None,
        Option(help="A model it covers: its name, or a pattern such as 'digits-*'.", show_default="all"),
    ] = None,
    models: Annotated[str | None, Option(hidden=True)] = None,
    images_per_minute: Annotated[
        int | None, Option(min=1, help="How many images it covers.", show_default="any number")
    ] = None,
    days: Annotated[
        int | None, Option(min=1, max=365_000, help="In how many days it expires.", show_default="never")
    ] = None,
) -> None:
    """Make a token for a caller and print it.

    Only its hash is kept, so it cannot be shown again; a running server accepts it within seconds.

    Example: bgan token create alice --tokens tokens.toml --model digits --model 'letters-*'
    """
    from ..security.tokens import make_token

    patterns = _patterns(model, models)
    expires = None if days is None else datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    typer.echo(make_token(tokens, name, models=patterns, images_per_minute=images_per_minute, expires=expires))
    typer.echo(f"{tokens} has its hash; keep the token, because it cannot be shown again", err=True)


@token.command("list")
def list_tokens(tokens: _Tokens, json_file: JsonFile = None) -> None:
    """List the tokens of a file: whose they are and what they cover.

    Example: bgan token list --tokens tokens.toml
    """
    from ..security.tokens import read_tokens

    found = read_tokens(tokens)
    rows = [
        {
            "name": name,
            "models": each.models,
            "images_per_minute": each.images_per_minute,
            "expires": None if each.expires is None else each.expires.isoformat(),
            "has_expired": each.has_expired(),
        }
        for name, each in found.items()
    ]
    if not wrote_json({"tokens": rows}, json_file):
        _print(rows)


@token.command()
def revoke(name: _Name, tokens: _Tokens) -> None:
    """Remove a caller's token: a running server ends their streams within seconds.

    Example: bgan token revoke alice --tokens tokens.toml
    """
    from ..security.tokens import remove_token

    remove_token(tokens, name)
    typer.echo(f"{tokens} no longer has {name}", err=True)


def _patterns(given: list[str] | None, old: str | None) -> list[str]:
    """The models; --models, with commas, is the spelling of the release before."""
    if old is None:
        patterns = given or ["*"]
    elif given:
        raise BadParameter("name either --model or --models, not both", param_hint="--models")
    else:
        patterns = [pattern.strip() for pattern in old.split(",")]
        _warn("--models A,B is now --model A --model B")
    if not all(patterns):
        raise BadParameter("a name is empty", param_hint="--model")
    return patterns


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    headings = ("name", "models", "images/minute", "expires")
    table = Table(*(Column(each, no_wrap=True) for each in headings), box=None, padding=(0, 2, 0, 0))
    for row in rows:
        expires = (row["expires"] or "never") + (", expired" if row["has_expired"] else "")
        cells = (row["name"], ", ".join(row["models"]), str(row["images_per_minute"] or "any"), expires)
        table.add_row(*map(Text, cells))
    console = Console()
    if not console.is_terminal:
        console = Console(width=10_000)
    console.print(table, soft_wrap=True)
