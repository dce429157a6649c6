"""The clients' commands: bgan sample and bgan models."""

from __future__ import annotations

import inspect
import logging
import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import BadParameter, Option

from ._text import printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from ._client import SamplingClient
    from ._types import ImageBatch, ModelInfo, ModelList

COMMANDS = {
    "sample": ("Sample", "Sample images from one or several servers into a file.", "bgan.clients.cli:sample"),
    "models": ("Sample", "List a server's models, and the files that it cannot serve.", "bgan.clients.cli:models"),
}
"""By name: the help panel, the summary and the function, whose docstring is the rest of the help."""
_CLASSES_NAMED = 20  # in a message, of more

_MAX_WAIT_SECONDS = 3600.0
_WIDEST = 10_000
_MAX_CELL = 100  # signs of a column; names may have 128
_log = logging.getLogger(__name__)

Server = Annotated[str, Option(help="The server's address.", envvar="BGAN_SERVER")]


@dataclass(frozen=True)
class Security:
    """TLS and token options. A token is in no argument: the list of processes shows these to everyone."""

    tls: Annotated[bool, Option("--tls", help="Use TLS, with the public authorities that gRPC knows.")] = False
    tls_ca: Annotated[
        Path | None,
        Option(
            help="Use TLS; the authorities that may have issued the server's certificate, a PEM file.",
            envvar="BGAN_TLS_CA",
            show_default="the public ones",
        ),
    ] = None
    tls_certificate: Annotated[Path | None, Option(help="Use TLS; this client's certificate, a PEM file.")] = None
    tls_key: Annotated[Path | None, Option(help="The certificate's private key, a PEM file.")] = None
    tls_server_name: Annotated[
        str | None, Option(help="The name in the server's certificate.", show_default="that of the address")
    ] = None
    token_file: Annotated[
        Path | None, Option(help="A file with the token to call with.", show_default="the variable BGAN_TOKEN")
    ] = None
    plaintext_token: Annotated[
        bool,
        Option("--plaintext-token", help="Send the token to other machines without TLS too, for all to read."),
    ] = False

    def connect(self, targets: str | list[str], timeout: float | None) -> SamplingClient:
        """A client with these options. Raises OSError, or BadParameter for a file or token that is invalid."""
        from ._client import SamplingClient
        from ._credentials import tls_credentials

        try:
            credentials = None
            if self.tls or self.tls_ca or self.tls_certificate or self.tls_key or self.tls_server_name:
                credentials = tls_credentials(ca=self.tls_ca, certificate=self.tls_certificate, key=self.tls_key)
            token = self.token_file.read_text() if self.token_file else os.environ.get("BGAN_TOKEN") or None
            limit: dict[str, Any] = {} if timeout is None else {"timeout_seconds": timeout}
            return SamplingClient(
                targets,
                credentials=credentials,
                server_name=self.tls_server_name,
                token=token,
                plaintext_token=self.plaintext_token,
                **limit,
            )
        except ValueError as error:
            raise BadParameter(str(error)) from error


def _with_security_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `Security` in place of its last parameter, `security`."""
    signature = inspect.signature(command, eval_str=True)
    options = inspect.signature(Security, eval_str=True).parameters

    @wraps(command)
    def run(**given: Any) -> None:
        security = Security(**{name: given.pop(name) for name in options})
        command(**given, security=security)

    *own, _ = signature.parameters.values()
    run.__dict__["__signature__"] = signature.replace(parameters=[*own, *options.values()])
    return run


@_with_security_options
def sample(
    context: typer.Context,
    output: Annotated[
        Path, Option("--output", "-o", help=".png: a grid. .npy: uint8, n x c x h x w. .npz: packed bits, seed.")
    ],
    count: Annotated[int, Option("--count", "-n", help="How many images.")] = 64,
    seed: Annotated[int | None, Option(help="The stream's seed.", show_default="drawn by the server")] = None,
    first_index: Annotated[int, Option(help="The index of the first image in the stream.")] = 0,
    model: Annotated[str, Option(help="The model's name.", show_default="the server's default")] = "",
    model_version: Annotated[int | None, Option(help="The model's version.", show_default="the highest")] = None,
    label: Annotated[
        list[str] | None,
        Option(
            help="A class of a class-conditional model: its name, or its number from 0 if no class is named "
            "by a number; several take turns.",
            show_default="drawn, all equally likely",
        ),
    ] = None,
    batch_size: Annotated[
        int, Option(help="Images per message; never changes the images.", show_default="the server's choice")
    ] = 0,
    server: Server = "localhost:50051",
    servers: Annotated[
        str | None, Option(help="Several servers with the same models, separated by commas; they share the work.")
    ] = None,
    request_id: Annotated[
        str | None, Option(help="The call's id in the server's log.", show_default="the server's choice")
    ] = None,
    timeout: Annotated[
        float | None,
        Option(
            help="Seconds that it may take, retries and waits included; inf: any.",
            show_default="10, and 0.01 an image; longer where the server says when to try again",
        ),
    ] = None,
    *,
    security: Security,
) -> None:
    """The same seed and index always give the same image.

    When a server restarts or breaks the connection, the stream resumes at its next image; of several
    servers, one that stays away leaves its images to the others. Where a token's images of a minute are
    spent, it waits for the next, unless --timeout says how long it may take.

    Examples: bgan sample --count 64 --seed 1 -o digits.png;  bgan sample -n 10000 --servers a:1,b:1 -o x.npz
    """
    from ._files import MAX_PNG_IMAGES, output_problem, write_batches

    if problem := output_problem(output):
        raise BadParameter(f"{output} {problem}", param_hint="--output")
    if output.suffix == ".png" and count > MAX_PNG_IMAGES:
        text = f"{count} are too many for one picture (at most {MAX_PNG_IMAGES}); write .npz or .npy"
        raise BadParameter(text, param_hint="--count")
    _check_timeout(timeout)
    with security.connect(_targets(context, server, servers), timeout) as client:
        request: dict[str, Any] = {
            "image_count": count,
            "seed": seed,
            "first_index": first_index,
            "model": model,
            "version": model_version,
            "batch_size": batch_size,
            "labels": _labels(client.get_model(model, version=model_version), label) if label else (),
            "request_id": request_id,
        }
        if timeout is None:
            batches = _patient_batches(client, request)
        else:
            batches = client.sample_binary_images(**request, timeout_seconds=timeout)
        try:
            with _ended_as_by_errors():
                last = write_batches(
                    _with_progress(batches, count),
                    output,
                    image_count=count,
                    classes=lambda: client.get_model(model, version=model_version).classes,
                )
        except ValueError as error:
            raise BadParameter(str(error), param_hint="--output") from error
    typer.echo(f"{output}: {count} images of {printable(last.model)}, seed {last.seed}, from index {first_index}")


@contextmanager
def _ended_as_by_errors() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the command as errors do, so that no unfinished file is left."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    named = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    taken = [each for each in named if signal.getsignal(each) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        taken = []
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _patient_batches(client: SamplingClient, request: dict[str, Any]) -> Iterator[ImageBatch]:
    """The batches of a stream that goes on when a server that was busy, or a token's quota, allows it.

    Raises the SamplingError of a try that brought no image although a server had been waited for.
    """
    from ._errors import ServerOverloadedError

    end, has_waited = request["first_index"] + request["image_count"], False
    while True:
        try:
            for batch in client.sample_binary_images(**request):
                request = {
                    **request,
                    "model": batch.model,
                    "revision": batch.revision,
                    "seed": batch.seed,
                    "first_index": batch.next_index,
                    "image_count": end - batch.next_index,
                }
                has_waited = False
                yield batch
            return
        except ServerOverloadedError as error:
            seconds = error.retry_after_seconds
            if seconds is None or seconds > _MAX_WAIT_SECONDS or has_waited:
                raise
            _log.warning("%s; going on from image %d in %.0f s", error, request["first_index"], seconds)
            has_waited = True
            time.sleep(seconds)


@_with_security_options
def models(
    server: Server = "localhost:50051",
    timeout: Annotated[float, Option(help="Seconds that it may take, retries included; inf: any.")] = 10.0,
    *,
    security: Security,
) -> None:
    """A * marks the default model.

    Example: bgan models --server localhost:50051
    """
    from rich.console import Console
    from rich.measure import Measurement
    from rich.text import Text  # neither markup nor emoji, whatever it says

    _check_timeout(timeout)
    with security.connect(server, timeout) as client:
        listed = client.list_models()
    console = Console()
    cells = _cells_of(listed)
    shown: RenderableType = _table_of(listed, cells)
    width = Measurement.get(console, console.options.update(max_width=_WIDEST), shown).maximum
    if console.is_terminal and width > console.width:
        shown = _blocks_of(listed, cells)
    else:  # a file or a pipe takes lines of any length
        console = Console(width=max(width, console.width))
    console.print(
        f"models of {printable(server)}; * is the default", markup=False, highlight=False, soft_wrap=True
    )
    console.print(shown, soft_wrap=True)
    for failure in listed.failures:
        text = f"{printable(failure.model)} cannot be served: {printable(failure.reason)}"
        console.print(Text(text, style="red"), soft_wrap=True)


def _cells_of(infos: ModelList) -> dict[str, list[str]]:
    """What there is to say of each model, by heading, without headings that no model has anything of."""
    columns = {
        "version": ["" if info.version is None else str(info.version) for info in infos],
        "neuron": [info.neuron for info in infos],
        "network": [info.network for info in infos],
        "arithmetic": [info.arithmetic for info in infos],
        "shape": ["x".join(map(str, info.image_shape)) for info in infos],
        "classes": [str(len(info.classes) or "") for info in infos],
        "data": [info.dataset for info in infos],
        "epoch": [str(info.epoch) for info in infos],
        "revision": [info.revision[:8] for info in infos],
    }
    return {
        heading: [printable(cell, _MAX_CELL) for cell in cells] for heading, cells in columns.items() if any(cells)
    }


def _table_of(infos: ModelList, cells: dict[str, list[str]]) -> Table:
    """A row for each model."""
    from rich.table import Column, Table
    from rich.text import Text  # not markup, whatever a model is called

    headings = ("", "model", *cells)
    table = Table(*(Column(each, no_wrap=True) for each in headings), box=None, padding=(0, 2, 0, 0))
    for info, *row in zip(infos, *cells.values(), strict=True):
        table.add_row("*" if info.is_default else "", *map(Text, (printable(info.name), *row)))
    return table


def _blocks_of(infos: ModelList, cells: dict[str, list[str]]) -> Text:
    """A paragraph for each model, for a terminal that the table does not fit."""
    from rich.text import Text

    lines = []
    for info, *row in zip(infos, *cells.values(), strict=True):
        words = [f"{heading} {cell}" for heading, cell in zip(cells, row, strict=True) if cell]
        lines += [f"{'*' if info.is_default else ' '} {printable(info.name)}", f"    {', '.join(words)}"]
    return Text("\n".join(lines))


def _labels(info: ModelInfo, named: list[str]) -> list[int]:
    """The numbers of the classes that are named. Raises BadParameter where the model has no such class."""
    if not info.classes:
        raise BadParameter(f"{printable(info.name)} is not class-conditional; leave it out", param_hint="--label")
    count, more = len(info.classes), ["..."] if len(info.classes) > _CLASSES_NAMED else []
    numbers = {name: number for number, name in enumerate(info.classes)}
    by_number = ""
    if not any(re.fullmatch(r"-?\d+", name) for name in info.classes):  # a number can only be the place of a class
        numbers |= {str(number): number for number in range(count)}
        by_number = f", or by number 0 to {count - 1}"
    # In a locale of C a word of the command line stands for its bytes.
    named = [label.encode(errors="surrogateescape").decode(errors="replace") for label in named]
    for label in named:
        if label not in numbers:
            names = ", ".join([*info.classes[:_CLASSES_NAMED], *more])
            there = f"there are {printable(names)}{by_number}"
            text = f"{printable(label)!r} is no class of {printable(info.name)}; {there}"
            raise BadParameter(text, param_hint="--label")
    return [numbers[label] for label in named]


def _check_timeout(seconds: float | None) -> None:
    if seconds is not None and (math.isnan(seconds) or seconds <= 0):
        raise BadParameter(f"{seconds} is no time; use seconds above 0, or inf", param_hint="--timeout")


def _targets(context: typer.Context, server: str, servers: str | None) -> list[str]:
    if servers is None:
        return [server]
    source = context.get_parameter_source("server")
    if source is not None and source.name == "COMMANDLINE":
        raise BadParameter("name either --server or --servers, not both", param_hint="--servers")
    targets = [target.strip() for target in servers.split(",")]
    if not all(targets):
        raise BadParameter(f"'{servers}' has an empty address", param_hint="--servers")
    return targets


def _with_progress(batches: Iterable[ImageBatch], count: int) -> Iterator[ImageBatch]:
    """Show a bar on a terminal; the client's warnings, such as of a resumed stream, appear above it."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("images", total=count)
        for batch in batches:
            progress.advance(task, len(batch))
            yield batch
