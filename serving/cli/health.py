"""bgan health."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated, Any

import typer

from .options import ConfigFile, Tls, TlsCa, TlsCertificate, TlsKey, TlsServerName, TokenFile


def health(
    server: Annotated[
        str | None,
        typer.Option(help="The server's address.", show_default="localhost, port of BGAN_PORT or the config"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Ask for this model's health.", show_default="the server's own")
    ] = None,
    timeout_seconds: Annotated[float, typer.Option(min=0.001, help="How long to wait for the answer.")] = 3.0,
    config: ConfigFile = None,
    tls: Tls = False,
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_server_name: TlsServerName = None,
    token_file: TokenFile = None,
) -> None:
    """A probe for service managers, without a server's address for the one on this machine.

    Example: bgan health --server localhost:50051 --model digits
    """
    from ..config.sources import resolve
    from ..server.health_check import TlsCheck, check_health, own_address, own_tls, read_pem

    options = {
        "ca": read_pem(tls_ca),
        "certificate": tls_certificate,
        "key": tls_key,
        "server_name": tls_server_name,
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    check = TlsCheck(**given) if tls or given else None
    if server is None:
        settings = resolve({}, config).settings
        server, own = own_address(settings), own_tls(settings, timeout_seconds=timeout_seconds)
        check = check if own is None else replace(own, **given)
    token = os.environ.get("BGAN_TOKEN", "") if token_file is None else token_file.read_text()
    check_health(server, model, timeout_seconds=timeout_seconds, tls=check, token=token.strip() or None)
    typer.echo(f"{server}: SERVING")
