"""bgan token."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer


def token(
    name: Annotated[str, typer.Argument(help="The caller's name: letters, digits and hyphens.")],
    tokens: Annotated[
        Path,
        typer.Option(help="The file for its hash, which bgan serve --tokens reads.", envvar="BGAN_TOKENS"),
    ],
    models: Annotated[
        str, typer.Option(help="The models it covers: names or patterns such as 'digits-*', with commas.")
    ] = "*",
    images_per_minute: Annotated[
        int | None, typer.Option(min=1, help="How many images it covers.", show_default="any number")
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, help="In how many days it expires.", show_default="never")
    ] = None,
) -> None:
    """Only its hash is kept, so it cannot be shown again; a running server accepts it within seconds.

    To revoke a token, remove its lines from the file.

    Example: bgan token alice --tokens tokens.toml --models "digits,letters-*" --images-per-minute 60000
    """
    from ..security.tokens import make_token

    patterns = [pattern.strip() for pattern in models.split(",")]
    if not all(patterns):
        raise typer.BadParameter(f"'{models}' has an empty name", param_hint="--models")
    expires = None if days is None else datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    typer.echo(make_token(tokens, name, models=patterns, images_per_minute=images_per_minute, expires=expires))
    typer.echo(f"{tokens} has its hash; keep the token, because it cannot be shown again", err=True)
