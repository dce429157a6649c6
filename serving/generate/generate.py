"""Generates images straight into a file: the bits of the stream, without a server."""

import os
import secrets
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rich.console import Console

from ..errors import GenerationError, Interrupted, UsageError
from ..models.checked import load_checked
from ..models.engine import Engine
from ..models.manifest import class_numbers
from ..models.model_files import FileSnapshot, scan, snapshot
from ..models.noise import INDEX_END
from ..models.providers import CPU, start_provider
from .console import cores, noted_stop_signals, progress_display, say
from .formats import FORMATS, MAX_PNG_IMAGES, GenerationSpec, Labels, outputs
from .partial_file import PartialFile, open_partial

_BATCHES_AHEAD = 2  # for each thread: one in work, and one that is done or next
_Rows = tuple[bytes | memoryview, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What to generate, and where to.

    Raises UsageError where a value is out of range, GenerationError where no such file can be written.
    """

    output: Path
    """The file; its suffix chooses the format."""
    count: int
    seed: int | None = None
    """The stream's seed, 0 to 2^63 - 1; None to have one drawn."""
    first_index: int = 0
    labels: tuple[str, ...] = ()
    """Classes by name or number: image i is of the class labels[i mod their number]; none to have them drawn."""
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_range(self.count, self.seed, self.first_index)
        if self.output.suffix not in FORMATS:
            raise UsageError(f"--output {self.output} must end in one of {', '.join(FORMATS)}")
        if self.output.suffix == ".png" and self.count > MAX_PNG_IMAGES:
            raise UsageError(
                f"--count {self.count} are too many for one picture (at most {MAX_PNG_IMAGES}); "
                "write .npz, .npy or .bits"
            )
        if not self.output.absolute().parent.is_dir():
            raise GenerationError(f"--output: the folder {self.output.parent} does not exist")
        if self.output.is_dir():
            raise GenerationError(f"--output {self.output} is a folder; name a file")
        for path in outputs(self.output):
            if path.is_symlink():
                raise GenerationError(f"{path} is a link; name what it leads to, {os.path.realpath(path)}")
            if path.exists() and not path.is_file():
                raise GenerationError(f"{path} is no plain file, which could be resumed; name another")
        self.refuse_existing(self.output)

    def refuse_existing(self, path: Path) -> None:
        """Raise GenerationError if a file is there and must not be replaced."""
        if path.exists() and not self.overwrite:
            raise GenerationError(f"{path} exists; --overwrite replaces it")


def check_range(count: int, seed: int | None, first_index: int) -> None:
    """Raise UsageError for what is no part of a stream."""
    if count < 1:
        raise UsageError(f"--count is {count}; ask for at least 1 image")
    if seed is not None and not 0 <= seed <= INDEX_END:
        raise UsageError(f"--seed is {seed}; use 0 to 2^63 - 1, or none to have one drawn")
    if first_index < 0:
        raise UsageError(f"--first-index is {first_index}; it must be at least 0")
    if first_index + count > INDEX_END:
        raise UsageError("--first-index + --count exceeds 2^63 - 1; start earlier or ask for fewer")


def find_model(model: str, folder: Path) -> FileSnapshot:
    """The file that `model` names: the highest version in folder/MODEL, folder/MODEL.onnx, or a path.

    Raises GenerationError.
    """
    files = list(scan(folder).values()) if folder.is_dir() else []
    versions = sorted((file for file in files if file.model == model), key=lambda file: file.version)
    for found in (*versions[-1:], snapshot(folder / f"{model}.onnx"), snapshot(Path(model))):
        if found is not None:
            return found
    there = ", ".join(sorted({file.model or file.path.stem for file in files})) or "none"
    raise GenerationError(
        f"there is no model {model!r} in {folder}: "
        + (f"there are {there}" if folder.is_dir() else "that is no folder")
        + "; name one, or a file that `bgan export` wrote"
    )


def open_model(model: str, folder: Path, provider: str = CPU.name) -> Engine:
    """Load a model, named as for `find_model`, to run in several threads at once.

    Raises GenerationError if there is no such file, ModelFileError if it is no model, and StartError if the
    provider cannot be used here.
    """
    file = find_model(model, folder)
    return load_checked(file, provider=start_provider(provider))


def generate(engine: Engine, request: GenerationRequest, console: Console, *, threads: int = 0) -> GenerationSpec:
    """Write the file, or resume it where an earlier call was stopped; returns what its images are.

    `threads` is how many batches are computed at once, 0 for one a core. Memory does not grow with the count.
    Raises Interrupted after a signal, and GenerationError.
    """
    wanted = wanted_images(
        engine, count=request.count, seed=request.seed, first_index=request.first_index, labels=request.labels
    )
    options = {"any_seed": request.seed is None, "overwrite": request.overwrite}
    with noted_stop_signals() as received, open_partial(request.output, wanted, **options) as partial:
        spec = partial.spec
        if partial.rows:
            say(console, f"resuming at image {partial.rows:,} of {request.output}, seed {spec.seed}")
        else:
            for path in outputs(request.output):
                request.refuse_existing(path)
            if request.seed is None:
                say(console, f"seed {spec.seed}, drawn")

        def check() -> None:
            if number := received():
                partial.save()
                done = f"image {partial.rows:,} of {spec.count:,}"
                raise Interrupted(
                    f"{number.name}: stopped and saved at {done}; the same command resumes", exit_code=128 + number
                )

        try:
            with progress_display(console, total=spec.count, done=partial.rows) as show:
                for rows, count in computed_ahead(engine, partial, threads or cores()):
                    partial.append(rows, count)
                    show(partial.rows)
                    check()
            request.refuse_existing(request.output)
            names = tuple(engine.manifest.classes)
            partial.finish(Labels(names, engine.noise.draw_labels) if names else None, check)
        except OSError as error:
            raise _failed(error, partial) from error
    return spec


def wanted_images(
    engine: Engine, *, count: int, seed: int | None, first_index: int, labels: tuple[str, ...]
) -> GenerationSpec:
    """Some images of a stream of a model; a seed of None is drawn. Raises UsageError for an unknown class."""
    return GenerationSpec(
        model=engine.manifest.name,
        revision=engine.revision,
        image_shape=engine.image_shape,
        seed=secrets.randbits(63) if seed is None else seed,
        first_index=first_index,
        count=count,
        labels=_class_labels(labels, engine),
    )


def _class_labels(labels: tuple[str, ...], engine: Engine) -> tuple[int, ...]:
    """The classes that are named. Raises UsageError where there is no such class."""
    # In a locale of C a word of the command line stands for its bytes.
    given = [label.encode(errors="surrogateescape").decode(errors="replace") for label in labels]
    try:
        return class_numbers(given, engine.manifest)
    except ValueError as error:
        text = str(error)
        raise UsageError(f"--label {text}" if text.startswith("is ") else f"--label: {text}") from error


def computed_ahead(engine: Engine, partial: PartialFile, threads: int) -> Iterator[_Rows]:
    """The rows of all missing batches in order; each is drawn, inferred and packed by one thread."""
    spec = partial.spec

    def compute(start: int) -> _Rows:
        count = min(batch_size, spec.count - start)
        batch = engine.sample(spec.seed, spec.first_index + start, count, labels=spec.labels)
        return partial.format.rows(batch.packed_images), count

    batch_size, ahead = engine.preferred_batch_size(), _BATCHES_AHEAD * threads
    starts = iter(range(partial.rows, spec.count, batch_size))
    with ThreadPoolExecutor(threads, thread_name_prefix="inference") as pool:
        pending: deque[Future[_Rows]] = deque()
        try:
            while True:
                pending.extend(pool.submit(compute, start) for start in islice(starts, ahead - len(pending)))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _failed(error: OSError, partial: PartialFile) -> GenerationError:
    with suppress(OSError):  # then the record before this one holds
        partial.save()
    kept = f"{partial.recorded_rows:,} of {partial.spec.count:,} images are kept"
    return GenerationError(
        f"{partial.path}: {error.strerror or error}; {kept}, and the same command resumes once that is mended"
    )
