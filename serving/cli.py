"""The server's command: bgan serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the server's commands."""
    app.command("serve", rich_help_panel="Serve")(serve_models)


def serve_models(
    models: Annotated[
        Path | None, typer.Option(help="The folder whose .onnx files are served.", show_default="models")
    ] = None,
    port: Annotated[int | None, typer.Option(help="The port; 0 for a free one.", show_default="50051")] = None,
    host: Annotated[
        str | None,
        typer.Option(help="The address; 0.0.0.0 for all of the machine's.", show_default="127.0.0.1"),
    ] = None,
    default_model: Annotated[
        str | None,
        typer.Option(help="The model that calls get which name none.", show_default="the first by name"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that share the port, for many cores. Linux only.", show_default="1"),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Batches that a process computes at once, one thread each.",
            show_default="its share of the cores",
        ),
    ] = None,
    max_image_count: Annotated[
        int | None, typer.Option(help="The most images a request may ask for.", show_default="1000000000")
    ] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(help="The most images a response may carry.", show_default="4096")
    ] = None,
    max_streams: Annotated[int | None, typer.Option(help="The most streams at once.", show_default="256")] = None,
    grace_seconds: Annotated[
        float | None, typer.Option(help="How long streams may go on after SIGTERM.", show_default="10")
    ] = None,
) -> None:
    """Stream binary images from exported models over gRPC, until SIGTERM or Ctrl-C.

    Every option is also an environment variable: BGAN_MODELS, BGAN_PORT, BGAN_MAX_STREAMS, ...

    Example: bgan serve --models models --port 50051
    """
    from pydantic import ValidationError

    from .config import ServerSettings
    from .errors import StartError
    from .server import run, serve
    from .supervisor import supervise

    given = {name: value for name, value in locals().items() if name in ServerSettings.model_fields}
    try:
        settings = ServerSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        problem = error.errors()[0]
        raise StartError(f"{problem['loc'][0]} is {problem['input']!r}: {problem['msg']}") from error
    run(serve(settings) if settings.workers == 1 else supervise(settings))
