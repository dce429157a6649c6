"""The clients' commands: bgan sample and bgan models."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from ._client import SamplingClient
    from ._types import ImageBatch, ModelInfo

Server = Annotated[str, typer.Option(help="The server's address.", envvar="BGAN_SERVER")]
_DEFAULT_SERVER = "localhost:50051"
_CLASSES_NAMED = 20  # in a message, of more
Tls = Annotated[bool, typer.Option("--tls", help="Use TLS, with the public authorities that gRPC knows.")]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        help="Use TLS; the authorities of the server's certificate, a PEM file.",
        envvar="BGAN_TLS_CA",
        show_default="the public ones",
    ),
]
TlsCertificate = Annotated[
    Path | None, typer.Option(help="Use TLS; this client's certificate, a PEM file.", show_default="none")
]
TlsKey = Annotated[Path | None, typer.Option(help="The certificate's private key.", show_default="none")]
TlsServerName = Annotated[
    str | None,
    typer.Option(help="The name that the server's certificate is good for.", show_default="that of the address"),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(help="A file that holds the token to call with.", show_default="the variable BGAN_TOKEN"),
]


def register(app: typer.Typer) -> None:
    """Add the clients' commands."""
    app.command(rich_help_panel="Sample")(sample)
    app.command("models", rich_help_panel="Sample")(list_models)


def sample(
    context: typer.Context,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help=".png: a grid. .npy: uint8 [n, c, h, w]. .npz: packed bits and origin."
        ),
    ],
    count: Annotated[int, typer.Option("--count", "-n", help="How many images.")] = 64,
    seed: Annotated[
        int | None, typer.Option(help="The stream's seed.", show_default="drawn by the server")
    ] = None,
    first_index: Annotated[int, typer.Option(help="The index of the first image in the stream.")] = 0,
    model: Annotated[str, typer.Option(help="The model's name.", show_default="the server's default")] = "",
    model_version: Annotated[
        int | None, typer.Option(help="The number of the model's version.", show_default="the highest")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="A class, by name or number, of a model that makes images of classes; several take turns.",
            show_default="drawn, all alike",
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(help="Images per message; never changes the images.", show_default="the server's choice"),
    ] = 0,
    server: Server = _DEFAULT_SERVER,
    servers: Annotated[
        str | None,
        typer.Option(
            help="Addresses of several servers of the same models, with commas; they share the work.",
            show_default="--server alone",
        ),
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(help="What the server's log is to call it.", show_default="the server's choice")
    ] = None,
    tls: Tls = False,
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_server_name: TlsServerName = None,
    token_file: TokenFile = None,
) -> None:
    """Sample binary images from a server, or from several, into a file.

    The same seed and index give the same image, always. When a server restarts or breaks the connection, the
    stream goes on at its next image; one of several that stays away leaves its images to the others.

    Examples: bgan sample --count 64 --seed 1 -o digits.png;  bgan sample -n 10000 --servers a:1,b:1 -o x.npz
    """
    from ._client import SamplingClient
    from ._files import PNG_IMAGES_AT_MOST, SUFFIXES, write_batches

    if output.suffix not in SUFFIXES:
        raise typer.BadParameter(f"{output} must end in one of {', '.join(SUFFIXES)}", param_hint="--output")
    if output.suffix == ".png" and count > PNG_IMAGES_AT_MOST:
        raise typer.BadParameter(
            f"{count} are too many for one picture (at most {PNG_IMAGES_AT_MOST}); write .npz or .npy",
            param_hint="--count",
        )
    if not output.absolute().parent.is_dir():
        raise typer.BadParameter(f"the folder {output.parent} does not exist", param_hint="--output")
    targets = _targets(context, server, servers)
    security = _security(tls, tls_ca, tls_certificate, tls_key, tls_server_name, token_file)
    with SamplingClient(targets, **security) as client:
        batches = client.sample_binary_images(
            image_count=count,
            seed=seed,
            first_index=first_index,
            model=model,
            version=model_version,
            batch_size=batch_size,
            labels=_labels(client, label or [], model, model_version),
            request_id=request_id,
        )
        last = write_batches(_with_progress(batches, count), output, image_count=count)
    typer.echo(f"{output}: {count} images of {last.model}, seed {last.seed}, from index {first_index}")


def list_models(
    server: Server = _DEFAULT_SERVER,
    tls: Tls = False,
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_server_name: TlsServerName = None,
    token_file: TokenFile = None,
) -> None:
    """List the models that a server has, and the files that it cannot serve.

    Example: bgan models --server localhost:50051
    """
    from rich.console import Console

    from ._client import SamplingClient

    security = _security(tls, tls_ca, tls_certificate, tls_key, tls_server_name, token_file)
    with SamplingClient(server, **security) as client:
        models = client.list_models()
        failures = client.list_model_failures()
    console = Console()
    console.print(_table_of(models, server))
    for failure in failures:
        text = f"{failure.model} cannot be served: {failure.reason}"
        console.print(text, markup=False, highlight=False, style="red", soft_wrap=True)


def _table_of(models: list[ModelInfo], server: str) -> Table:
    """A row for each model, without the columns that would be empty."""
    from rich.table import Table

    table = Table(
        box=None, padding=(0, 2, 0, 0), title=f"models of {server}; * is the default", title_justify="left"
    )
    table.add_column("")
    table.add_column("model", overflow="fold")
    columns = {
        "version": ["" if info.version is None else str(info.version) for info in models],
        "neuron": [info.neuron for info in models],
        "network": [info.network for info in models],
        "shape": ["x".join(map(str, info.image_shape)) for info in models],
        "classes": [str(len(info.classes) or "") for info in models],
        "data": [info.dataset for info in models],
        "epoch": [str(info.epoch) for info in models],
        "revision": [info.revision[:8] for info in models],
    }
    columns = {heading: cells for heading, cells in columns.items() if any(cells)}  # no versions, no classes
    for heading in columns:
        table.add_column(heading, no_wrap=True)
    for info, *cells in zip(models, *columns.values(), strict=True):
        table.add_row("*" if info.is_default else "", info.name, *cells)
    return table


def _labels(client: SamplingClient, named: list[str], model: str, version: int | None) -> list[int]:
    """The numbers of classes that are named. Raises BadParameter where the model has no such class."""
    if not named:
        return []
    info = client.get_model(model, version=version)
    if not info.classes:
        raise typer.BadParameter(f"{info.name} makes images of no classes; leave it out", param_hint="--label")
    numbers = {str(number): number for number in range(len(info.classes))}
    numbers |= {name: number for number, name in enumerate(info.classes)}
    names = ", ".join([*info.classes[:_CLASSES_NAMED], *(["..."] if len(info.classes) > _CLASSES_NAMED else [])])
    for label in named:
        if label not in numbers:
            raise typer.BadParameter(
                f"{label!r} is no class of {info.name}; there are {names}, or by number 0 to "
                f"{len(info.classes) - 1}",
                param_hint="--label",
            )
    return [numbers[label] for label in named]


def _security(
    tls: bool,
    tls_ca: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_server_name: str | None,
    token_file: Path | None,
) -> dict[str, Any]:
    """What a client is made with. A token is in no argument: the list of processes shows these to everyone."""
    from ._credentials import check_token, tls_credentials

    try:
        token = os.environ.get("BGAN_TOKEN") or None
        if token_file is not None:
            token = token_file.read_text()
        credentials = None
        if tls or tls_ca or tls_certificate or tls_key or tls_server_name:
            credentials = tls_credentials(ca=tls_ca, certificate=tls_certificate, key=tls_key)
        return {
            "credentials": credentials,
            "server_name": tls_server_name,
            "token": None if token is None else check_token(token),
        }
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _targets(context: typer.Context, server: str, servers: str | None) -> list[str]:
    if servers is None:
        return [server]
    source = context.get_parameter_source("server")
    if source is not None and source.name == "COMMANDLINE":
        raise typer.BadParameter("name either --server or --servers, not both", param_hint="--servers")
    targets = [target.strip() for target in servers.split(",")]
    if not all(targets):
        raise typer.BadParameter(f"'{servers}' has an empty address", param_hint="--servers")
    return targets


def _with_progress(batches: Iterable[ImageBatch], count: int) -> Iterator[ImageBatch]:
    """Show a bar on a terminal; the client's warnings, such as of a resumed stream, stand above it."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("images", total=count)
        for batch in batches:
            progress.advance(task, len(batch))
            yield batch


COMMANDS = {
    "sample": ("Sample", "sample", "bgan.clients.cli:sample"),
    "models": ("Sample", "models", "bgan.clients.cli:list_models"),
}
