"""The commands that run a model, bgan serve and bgan generate, and bgan health, bgan top and bgan token."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Add the commands that run a model."""
    app.command(rich_help_panel="Serve")(serve)
    app.command(rich_help_panel="Serve")(health)
    app.command(rich_help_panel="Serve")(top)
    app.command(rich_help_panel="Serve")(token)
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
    max_model_bytes: Annotated[
        int | None, typer.Option(help="The largest model file that is read.", show_default="268435456")
    ] = None,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(help="The server's certificate, a PEM file; turns TLS on.", show_default="plaintext"),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="The certificate's private key, a PEM file.", show_default="none")
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(help="The authorities whose clients alone are let in.", show_default="any client"),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(help="The file of tokens that calls must carry one of (bgan token).", show_default="none"),
    ] = None,
    health: Annotated[
        str | None, typer.Option(help="Who may ask for the health: open or token.", show_default="open")
    ] = None,
    reflection: Annotated[
        bool | None,
        typer.Option("--reflection/--no-reflection", help="Tell callers the services.", show_default="on"),
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
    log_format: Annotated[
        str | None, typer.Option(help="text, or json: one object a line.", show_default="text")
    ] = None,
    log_calls: Annotated[
        str | None, typer.Option(help="Which calls to log: none, failed, all.", show_default="failed")
    ] = None,
    trace_endpoint: Annotated[
        str | None,
        typer.Option(
            help="Where a collector takes OpenTelemetry traces, as http://localhost:4317.", show_default="none"
        ),
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
    max_connection_age_seconds: Annotated[
        float | None,
        typer.Option(
            help="When clients are to connect anew, and so find new servers of a name; 0: never.", show_default="0"
        ),
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
    from .config.settings import ServerSettings
    from .config.sources import resolve

    flags = {name: value for name, value in given.items() if name in ServerSettings.model_fields}
    resolved = resolve({name: value for name, value in flags.items() if value is not None}, config)
    if print_config:
        typer.echo(resolved.as_toml(), nl=False)
        return

    from .server.server import run
    from .server.server import serve as serve_here
    from .server.supervisor import supervise

    settings = resolved.settings
    main = serve_here(settings) if settings.workers == 1 else supervise(settings)
    run(main, log_format=settings.log_format)


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
    tls: Annotated[bool, typer.Option("--tls", help="Use TLS, with the public authorities.")] = False,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            help="Use TLS; the authorities of the server's certificate, a PEM file.",
            envvar="BGAN_TLS_CA",
            show_default="the public ones; of the server here whatever it shows",
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="Use TLS; the certificate to show, a PEM file.", show_default="none")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key.", show_default="none")] = None,
    tls_server_name: Annotated[
        str | None,
        typer.Option(
            help="The name that the server's certificate is good for.", show_default="that of the address"
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="A file that holds the token to ask with.", show_default="the variable BGAN_TOKEN"),
    ] = None,
) -> None:
    """Ask a server whether it serves; for probes: exits with 0 if it does and with 1 if not, and says why.

    Example: bgan health --server localhost:50051 --model digits
    """
    from .config.sources import resolve
    from .server.health_check import TlsCheck, check_health, own_address, own_tls, read_pem

    given: dict[str, Any] = {
        "ca": read_pem(tls_ca),
        "certificate": tls_certificate,
        "key": tls_key,
        "server_name": tls_server_name,
    }
    given = {name: value for name, value in given.items() if value is not None}
    check = TlsCheck(**given) if tls or given else None
    if server is None:
        settings = resolve({}, config).settings
        server, own = own_address(settings), own_tls(settings, timeout_seconds=timeout_seconds)
        check = replace(own, **given) if own is not None else check
    token = token_file.read_text() if token_file is not None else os.environ.get("BGAN_TOKEN", "")
    check_health(server, model, timeout_seconds=timeout_seconds, tls=check, token=token.strip() or None)
    typer.echo(f"{server}: SERVING")


def token(
    name: Annotated[str, typer.Argument(help="Whose token it is; letters, digits and hyphens.")],
    tokens: Annotated[
        Path,
        typer.Option(
            help="The file that its hash is added to, which bgan serve --tokens reads.", envvar="BGAN_TOKENS"
        ),
    ],
    models: Annotated[
        str, typer.Option(help="The models it is good for: names or patterns such as 'digits-*', with commas.")
    ] = "*",
    images_per_minute: Annotated[
        int | None, typer.Option(min=1, help="How many images it is good for.", show_default="any number")
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, help="How many days it is good for.", show_default="any")
    ] = None,
) -> None:
    """Make a token for a caller, and print it: only its hash is kept, so it is not to be had again.

    A running server takes it up within seconds. To revoke a token remove its lines from the file.

    Example: bgan token alice --tokens tokens.toml --models "digits,letters-*" --images-per-minute 60000
    """
    from .security.tokens import make_token

    patterns = [pattern.strip() for pattern in models.split(",")]
    if not all(patterns):
        raise typer.BadParameter(f"'{models}' has an empty name", param_hint="--models")
    expires = None if days is None else datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    text = make_token(tokens, name, models=patterns, images_per_minute=images_per_minute, expires=expires)
    typer.echo(text)
    typer.echo(f"{tokens} has its hash; keep the token, for it cannot be shown again", err=True)


def top(
    address: Annotated[
        str | None,
        typer.Argument(
            help="Where the server shows its metrics.",
            show_default="here, at the port that BGAN_METRICS_PORT or the config sets",
        ),
    ] = None,
    interval: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds from look to look.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one look, and exit.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="The TOML file of the server here.", envvar="BGAN_CONFIG")
    ] = None,
) -> None:
    """Watch a running server: images a second, streams, queue, inference time, rejected calls, models, workers.

    The server has to show its metrics: bgan serve --metrics-port 9090. Ctrl-C ends it.

    Examples: bgan top localhost:9090;  bgan top localhost:9090 --once
    """
    from contextlib import suppress

    from rich.console import Console

    from .config.sources import resolve
    from .telemetry.scrape import metrics_url
    from .telemetry.top import own_metrics, watch

    target = address if address is not None else own_metrics(resolve({}, config).settings)
    with suppress(KeyboardInterrupt):
        watch(metrics_url(target), Console(), interval_seconds=interval, once=once)


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

    from .config.default_models import model_folder
    from .generate.generate import GenerationRequest, open_model
    from .generate.generate import generate as run

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


COMMANDS = {
    "serve": ("Serve", "serve", "bgan.serving.cli:serve"),
    "health": ("Serve", "health", "bgan.serving.cli:health"),
    "top": ("Serve", "top", "bgan.serving.cli:top"),
    "token": ("Serve", "token", "bgan.serving.cli:token"),
    "generate": ("Sample", "generate", "bgan.serving.cli:generate"),
}
