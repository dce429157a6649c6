"""The commands that run a model, bgan serve and bgan generate, and bgan health."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands that run a model."""
    app.command(rich_help_panel="Serve")(serve)
    app.command(rich_help_panel="Serve")(health)
    app.command(rich_help_panel="Sample")(generate)


def serve(
    models: Annotated[
        Path | None,
        typer.Option(
            help="The folder whose models are served: NAME.onnx, NAME/VERSION.onnx.",
            show_default="./models where it is there, else those that come with bgan",
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(help="The port; 0 for a free one.", show_default="50051")] = None,
    host: Annotated[
        str | None,
        typer.Option(help="The address; 0.0.0.0 for all of the machine's.", show_default="127.0.0.1"),
    ] = None,
    default_model: Annotated[
        str | None,
        typer.Option(
            help="The model that calls get which name none.",
            show_default="the first by name",
        ),
    ] = None,
    model_versions: Annotated[
        int | None, typer.Option(help="How many versions of a model are loaded, the highest.", show_default="2")
    ] = None,
    model_poll_seconds: Annotated[
        float | None,
        typer.Option(help="How often to look for new, changed and removed models; 0: never.", show_default="2"),
    ] = None,
    model_keep_seconds: Annotated[
        float | None,
        typer.Option(help="How long a replaced model can be asked for by its revision.", show_default="60"),
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
    metrics_port: Annotated[
        int | None,
        typer.Option(help="The port that shows metrics to Prometheus; 0: a free one.", show_default="none"),
    ] = None,
    metrics_host: Annotated[
        str | None, typer.Option(help="The address that shows metrics.", show_default="127.0.0.1")
    ] = None,
    max_image_count: Annotated[
        int | None, typer.Option(help="The most images a request may ask for.", show_default="1000000000")
    ] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(help="The most images a response may carry.", show_default="4096")
    ] = None,
    max_message_bytes: Annotated[
        int | None, typer.Option(help="The most bytes a message may take.", show_default="4000000")
    ] = None,
    max_streams: Annotated[
        int | None, typer.Option(help="The most streams and inferences at once.", show_default="256")
    ] = None,
    max_streams_per_caller: Annotated[
        int | None, typer.Option(help="The most of them that one address may have.", show_default="128")
    ] = None,
    max_queued_calls: Annotated[
        int | None, typer.Option(help="How many calls may wait for their turn.", show_default="64")
    ] = None,
    stalled_write_seconds: Annotated[
        float | None, typer.Option(help="When a stream that is not read is ended.", show_default="60")
    ] = None,
    keepalive_seconds: Annotated[
        float | None, typer.Option(help="How often a silent connection is checked.", show_default="60")
    ] = None,
    lame_duck_seconds: Annotated[
        float | None, typer.Option(help="How long new calls are still taken after SIGTERM.", show_default="0")
    ] = None,
    grace_seconds: Annotated[
        float | None, typer.Option(help="How long streams may go on after that.", show_default="10")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A TOML file of settings, as --print-config writes it.", envvar="BGAN_CONFIG"),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print every setting and where it came from; do not serve.")
    ] = False,
) -> None:
    """Stream binary images from exported models over gRPC, until SIGTERM or Ctrl-C.

    Options go before environment variables (BGAN_MODELS, BGAN_PORT, BGAN_MAX_STREAMS, ...), and these before the
    file that --config names (models = "models", port = 50051, max_streams = 256, ...).

    Examples: bgan serve;  bgan serve --models models --port 50051
    """
    given = dict(locals())
    from .config import ServerSettings
    from .sources import resolve

    flags = {name: value for name, value in given.items() if name in ServerSettings.model_fields}
    resolved = resolve({name: value for name, value in flags.items() if value is not None}, config)
    if print_config:
        typer.echo(resolved.as_toml(), nl=False)
        return

    from .server import run
    from .server import serve as serve_here
    from .supervisor import supervise

    settings = resolved.settings
    run(serve_here(settings) if settings.workers == 1 else supervise(settings))


def health(
    server: Annotated[
        str | None,
        typer.Option(
            help="The server's address.", show_default="here, at the port that BGAN_PORT or the config sets"
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Ask for this model's health.", show_default="the server's own")
    ] = None,
    timeout_seconds: Annotated[float, typer.Option(min=0.001, help="How long to wait for the answer.")] = 3.0,
    config: Annotated[
        Path | None, typer.Option(help="The TOML file of the server here.", envvar="BGAN_CONFIG")
    ] = None,
) -> None:
    """Ask a server whether it serves; for probes: exits with 0 if it does and with 1 if not, and says why.

    Example: bgan health --server localhost:50051 --model digits
    """
    from .health_check import check_health, own_address
    from .sources import resolve

    target = server if server is not None else own_address(resolve({}, config).settings)
    check_health(target, model, timeout_seconds=timeout_seconds)
    typer.echo(f"{target}: SERVING")


def generate(
    model: Annotated[str, typer.Argument(help="An .onnx file, or the name of one in the folder of models.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help=".npz: packed bits and origin. .npy: uint8 [n, c, h, w]. .bits, .bin: packed bits alone, "
            "described in a .json beside them.",
        ),
    ],
    count: Annotated[int, typer.Option("--count", "-n", help="How many images.")] = 64,
    seed: Annotated[int | None, typer.Option(help="The stream's seed.", show_default="drawn")] = None,
    first_index: Annotated[int, typer.Option(help="The index of the first image in the stream.")] = 0,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="A class, by name or number, of a model that makes images of classes; several take turns.",
            show_default="drawn, all alike",
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            help="The folder that a model's name is looked up in.",
            envvar="BGAN_MODELS",
            show_default="./models where it is there, else those that come with bgan",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Cores to use.", show_default="all")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Generate binary images into a file without a server: the bits that a server would stream.

    The same command again goes on with a file that was stopped; any count takes the same memory.

    Examples: bgan generate cnn-dbn --count 1000000 --seed 1 -o digits.npz;
    bgan generate models/digits.onnx -n 500000 --seed 1 --first-index 500000 -o second-half.bits
    """
    from rich.console import Console

    from .generation import GenerationRequest, open_model
    from .generation import generate as run
    from .model_folder import model_folder

    request = GenerationRequest(
        output=output,
        count=count,
        seed=seed,
        first_index=first_index,
        labels=tuple(label or ()),
        overwrite=overwrite,
    )
    origin = run(open_model(model, models or model_folder()), request, Console(stderr=True), threads=threads)
    typer.echo(f"{output}: {count} images of {origin.model}, seed {origin.seed}, from index {first_index}")
