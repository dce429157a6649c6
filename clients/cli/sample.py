"""`bgan sample`: the command."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import BadParameter, Option

from .._text import printable
from .connection import DEFAULT_SERVER, Security, check_timeout, with_security_options
from .stop_signals import Stopped, StopSignals

if TYPE_CHECKING:
    from .._client import SamplingClient
    from .._output.formats import StreamPart
    from .._output.partial_file import PartialFile
    from .._types import ImageBatch, ModelInfo

_CLASSES_NAMED = 20  # in a message, of more
_MAX_WAIT_SECONDS = 3600.0
_INDEX_END = 2**63 - 1
_log = logging.getLogger(__name__)


@with_security_options
def sample(
    context: typer.Context,
    output: Annotated[
        Path,
        Option(
            "--output",
            "-o",
            help=".png: a grid. .npz: packed bits and their origin. .npy: uint8 (n, c, h, w). .bits, .bin: packed "
            "bits alone, described in a .json beside them.",
        ),
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
            show_default="drawn, as often as in training",
        ),
    ] = None,
    batch_size: Annotated[
        int, Option(help="Images per message; never changes the images.", show_default="the server's choice")
    ] = 0,
    server: Annotated[
        list[str] | None,
        Option(
            help="A server's address; several with the same models share the work.",
            envvar="BGAN_SERVER",
            show_default=DEFAULT_SERVER,
        ),
    ] = None,
    servers: Annotated[str | None, Option(hidden=True)] = None,
    request_id: Annotated[
        str | None, Option(help="The call's id in the server's log.", show_default="the server's choice")
    ] = None,
    timeout: Annotated[
        float | None,
        Option(
            help="Seconds that it may take, retries and waits included; inf: any.",
            envvar="BGAN_TIMEOUT",
            callback=check_timeout,
            show_default="10, and 0.01 an image; longer where the server says when to try again",
        ),
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing file.")] = False,
    *,
    security: Security,
) -> None:
    """The same seed and index always give the same image. The same command again resumes a file that was stopped.

    When a server restarts or breaks the connection, the stream resumes at its next image; of several
    servers, one that stays away leaves its images to the others. Where a token's images of a minute are
    spent, it waits for the next, unless --timeout says how long it may take.

    Examples: bgan sample --count 64 --seed 1 -o digits.png;
    bgan sample -n 10000 --server a:50051 --server b:50051 -o x.npz
    """
    from .._output.partial_file import check_output, open_partial

    _check_images(output, count, seed, first_index)
    check_output(output, overwrite=overwrite)
    targets = _targets(context, server, servers)
    with security.connect(targets, timeout) as client:
        labels = _labels(client.get_model(model, version=model_version), label) if label else []
        wanted: dict[str, Any] = {"first_index": first_index, "count": count, "labels": tuple(labels)}
        wanted |= {name: value for name, value in (("model", model), ("seed", seed)) if value not in ("", None)}
        request = {
            "seed": seed,
            "model": model,
            "version": model_version,
            "batch_size": batch_size,
            "labels": labels,
            "request_id": request_id,
        }
        stop = StopSignals()
        with stop.noted(), open_partial(output, wanted, overwrite=overwrite) as partial:
            work = _Work(client, request, wanted, partial, timeout, stop)
            try:
                part = work.run(overwrite=overwrite)
            except (Exception, Stopped) as error:
                if (explained := work.explained(error)) is not error:
                    raise explained from error
                raise
    _say(f"{count} images of {printable(part.model)}, seed {part.seed}, from index {first_index}")
    typer.echo(output)


@dataclass
class _Work:
    """The sampling of one file, from where its unfinished part ends."""

    client: SamplingClient
    request: dict[str, Any]
    wanted: dict[str, Any]
    partial: PartialFile
    timeout: float | None
    stop: StopSignals

    def run(self, *, overwrite: bool) -> StreamPart:
        """Sample what is missing and finish the file; returns what its images are."""
        from .._output.partial_file import refuse_existing

        partial, count = self.partial, self.wanted["count"]
        if partial.part is not None:
            _say(f"resuming at image {partial.rows:,} of {partial.output}, seed {partial.part.seed}")
        if partial.rows < count:
            batches = self.stop.watched(self._batches())
            for batch in _with_progress(batches, count, partial.rows):
                if partial.part is None:
                    partial.begin(self._part_of(batch))
                partial.append(batch)
                self.stop.check()
        refuse_existing(partial.output, overwrite=overwrite)
        partial.finish(self.stop.check)
        assert partial.part is not None
        return partial.part

    def explained(self, error: BaseException) -> BaseException:
        """The error, with what is kept for the same command to resume."""
        from .._errors import RevisionChangedError, SamplingError

        rows, count = self.partial.rows, self.wanted["count"]
        if not rows:
            return error
        if isinstance(error, Stopped):
            done = f"stopped and saved at image {rows:,} of {count:,}"
            return _Interrupted(f"{error.number.name}: {done}; the same command resumes", error.code)
        kept = f"{rows:,} of {count:,} images are kept, and the same command resumes"
        if isinstance(error, RevisionChangedError):
            kept = f"{rows:,} of {count:,} images are kept in {self.partial.path}; to start again, remove it"
        if isinstance(error, SamplingError):
            error.args = (f"{error}; {kept}",)
        elif isinstance(error, OSError):
            return OSError(error.errno, f"{error.strerror or error}; {kept}", str(self.partial.path))
        return error

    def _batches(self) -> Iterator[ImageBatch]:
        part, rows = self.partial.part, self.partial.rows
        request = {
            **self.request,
            "first_index": self.wanted["first_index"] + rows,
            "image_count": self.wanted["count"] - rows,
        }
        if part is not None:
            request |= {"model": part.model, "revision": part.revision, "seed": part.seed}
        if self.timeout is None:
            return _patient_batches(self.client, request)
        return self.client.sample_binary_images(**request, timeout_seconds=self.timeout)

    def _part_of(self, batch: ImageBatch) -> StreamPart:
        from .._output.formats import StreamPart

        assert batch.seed is not None
        classes: tuple[str, ...] = ()
        if batch.labels is not None:
            classes = self.client.get_model(batch.model, version=self.request["version"]).classes
        return StreamPart(
            model=batch.model,
            revision=batch.revision,
            image_shape=batch.image_shape,
            seed=batch.seed,
            first_index=self.wanted["first_index"],
            count=self.wanted["count"],
            labels=self.wanted["labels"],
            classes=classes,
        )


class _Interrupted(Exception):  # noqa: N818 - it is no error of the program
    """A signal stopped the sampling, after it was saved."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def _check_images(output: Path, count: int, seed: int | None, first_index: int) -> None:
    """Raise BadParameter for what is no part of a stream, or no name of a file of images."""
    from .._output.formats import FORMATS, MAX_PNG_IMAGES

    if output.suffix not in FORMATS:
        raise BadParameter(f"{output} must end in one of {', '.join(FORMATS)}", param_hint="--output")
    if count < 1:
        raise BadParameter(f"{count} is too few; ask for at least 1 image", param_hint="--count")
    if output.suffix == ".png" and count > MAX_PNG_IMAGES:
        text = f"{count} are too many for one picture (at most {MAX_PNG_IMAGES}); write .npz, .npy or .bits"
        raise BadParameter(text, param_hint="--count")
    if seed is not None and not 0 <= seed <= _INDEX_END:
        raise BadParameter(f"{seed} is no seed; use 0 to 2^63 - 1, or none to have one drawn", param_hint="--seed")
    if not 0 <= first_index <= _INDEX_END - count:
        text = f"{first_index} is out of range; images are counted from 0 to 2^63 - 1"
        raise BadParameter(text, param_hint="--first-index")


def _patient_batches(client: SamplingClient, request: dict[str, Any]) -> Iterator[ImageBatch]:
    """The batches of a stream that goes on when a server that was busy, or a token's quota, allows it.

    Raises the SamplingError of a try that brought no image although a server had been waited for.
    """
    from .._errors import ServerOverloadedError

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


def _targets(context: typer.Context, server: list[str] | None, servers: str | None) -> list[str]:
    """The addresses; --servers, with commas, is the spelling of the release before."""
    if servers is None:
        return server or [DEFAULT_SERVER]
    source = context.get_parameter_source("server")
    if source is not None and source.name == "COMMANDLINE":
        raise BadParameter("name either --server or --servers, not both", param_hint="--servers")
    targets = [target.strip() for target in servers.split(",")]
    if not all(targets):
        raise BadParameter(f"'{servers}' has an empty address", param_hint="--servers")
    _say("warning: --servers A,B is now --server A --server B; the old spelling goes with the next release")
    return targets


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _with_progress(batches: Iterable[ImageBatch], count: int, done: int) -> Iterator[ImageBatch]:
    """Show a bar on a terminal; the client's warnings, such as of a resumed stream, appear above it."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("images", total=count, completed=done)
        for batch in batches:
            progress.advance(task, len(batch))
            yield batch
