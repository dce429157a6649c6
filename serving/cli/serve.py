"""bgan serve."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..config.descriptions import SETTINGS
from ..config.sources import resolve
from .options import ConfigFile, settings_options


@settings_options(SETTINGS.values())
def serve(
    *,
    config: ConfigFile = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print every setting and where it came from; do not serve.")
    ] = False,
    **options: Any,
) -> None:
    """Options override environment variables, which override the file that --config names.

    Every setting is all of these: --max-streams 64, BGAN_MAX_STREAMS=64, and max_streams = 64 in the file.

    Examples: bgan serve;  bgan serve --models models --port 50051
    """
    resolved = resolve(options, config)
    if print_config:
        typer.echo(resolved.as_toml(), nl=False)
        return

    from ..server import server, supervisor

    settings = resolved.settings
    main = server.serve(settings) if settings.workers == 1 else supervisor.supervise(settings)
    server.run(main, log_format=settings.log_format)
