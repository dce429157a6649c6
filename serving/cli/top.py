"""bgan top."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from .options import ConfigFile


def top(
    address: Annotated[
        str | None,
        typer.Argument(
            help="Where the server shows its metrics.",
            show_default="localhost, port of BGAN_METRICS_PORT or the config",
        ),
    ] = None,
    interval: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between updates.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one update and exit.")] = False,
    config: ConfigFile = None,
) -> None:
    """The server must show its metrics: bgan serve --metrics-port 9090. Ctrl-C exits.

    Examples: bgan top localhost:9090;  bgan top localhost:9090 --once
    """
    from rich.console import Console

    from ..config.sources import resolve
    from ..telemetry.scrape import metrics_url
    from ..telemetry.top import own_metrics, watch

    target = own_metrics(resolve({}, config).settings) if address is None else address
    with suppress(KeyboardInterrupt):
        watch(metrics_url(target), Console(), interval_seconds=interval, once=once)
