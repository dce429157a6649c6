"""An unfinished file of images: rows that are only ever appended, and a record of which of them are safe.

OUTPUT.partial holds the rows, OUTPUT.partial.json what they are and how many have been seen to disk. Whatever ends
the process, the record is true: rows beyond it are cut off when the file is resumed.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any

from ..errors import GenerationError
from .formats import FORMATS, GenerationSpec, Labels, sidecar, write_json

try:
    import fcntl
except ImportError:  # Windows: as on a file system without locks
    fcntl = None  # type: ignore[assignment]

_RECORD_SECONDS = 1.0
_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}  # file systems that have none


@contextmanager
def open_partial(
    output: Path, wanted: GenerationSpec, *, any_seed: bool = False, overwrite: bool = False
) -> Iterator[PartialFile]:
    """Hold the unfinished file of an output, alone; leaving records what it holds, or removes it if it is empty.

    Where it holds some of the wanted images it is resumed. With `any_seed` images of another seed are wanted too.
    Where it holds other images `overwrite` discards them. Raises GenerationError without it, or if another process
    holds the file, and OSError.
    """
    path = output.with_name(f"{output.name}.partial")
    with path.open("ab", buffering=0) as file, ThreadPoolExecutor(1, thread_name_prefix="record") as recorder:
        _hold_alone(path, file)
        spec, rows = _agree(path, os.fstat(file.fileno()).st_size, wanted, any_seed=any_seed, overwrite=overwrite)
        partial = PartialFile(output, path, file, recorder, spec, rows)
        try:
            partial.begin()
            yield partial
        except OSError as error:  # a write names no file
            error.filename = error.filename or str(path)
            raise
        finally:
            partial.leave()


@dataclass(eq=False)
class PartialFile:
    """An unfinished file that is held; `open_partial` makes it."""

    output: Path
    path: Path
    file: FileIO
    recorder: ThreadPoolExecutor
    spec: GenerationSpec
    rows: int

    def __post_init__(self) -> None:
        self.format = FORMATS[self.output.suffix](self.spec)
        self.recorded_rows = self.rows
        """Images that nothing short of losing the disk can take."""
        self._is_finished = False
        self._recording: Future[None] | None = None
        self._recorded_at = float("-inf")  # the first rows are recorded at once

    def begin(self) -> None:
        """Make it ready for the next rows. Raises OSError."""
        self.file.truncate(self.format.size(self.rows) if self.rows else 0)
        if not self.rows:
            self._record(0)
            self._write(self.format.head)

    def append(self, rows: bytes | memoryview, count: int) -> None:
        """Write the rows of the next `count` images. Raises OSError."""
        self._write(rows)
        self.rows += count
        if time.monotonic() - self._recorded_at >= _RECORD_SECONDS:
            self._recorded_at = time.monotonic()
            self._end_recording()  # a disk that is slower than the computing is waited for
            self._recording = self.recorder.submit(self._record, self.rows)

    def save(self) -> None:
        """See all that is written to disk, and record it. Raises OSError."""
        self._end_recording()
        self._record(self.rows)

    def finish(self, labels: Labels | None, check: Callable[[], None]) -> None:
        """Make the finished file of it, replacing what is there. `check` is called often and may raise."""
        self.save()
        if fcntl is None:  # Windows moves no file that is open
            self.file.close()
        self.format.finish(self.path, self.output, labels, check)
        self._is_finished = True
        sidecar(self.path).unlink()

    def leave(self) -> None:
        """Keep what there is, or nothing."""
        if self._is_finished or self.file.closed:
            return
        if self.rows == 0:
            self.path.unlink(missing_ok=True)
            sidecar(self.path).unlink(missing_ok=True)
            return
        with suppress(OSError):  # then the record before this one holds
            self.save()

    def _write(self, content: bytes | memoryview) -> None:
        left = memoryview(content)
        while left:
            left = left[self.file.write(left) :]

    def _end_recording(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.result()

    def _record(self, rows: int) -> None:
        os.fsync(self.file)
        write_json(sidecar(self.path), {**asdict(self.spec), "rows": rows})
        self.recorded_rows = rows


def _agree(
    path: Path, size: int, wanted: GenerationSpec, *, any_seed: bool, overwrite: bool
) -> tuple[GenerationSpec, int]:
    """What to generate, and how many images of it are there."""
    if size == 0:
        return wanted, 0
    try:
        held, rows = _read_record(path)
        _check_same(path, held, replace(wanted, seed=held.seed) if any_seed else wanted)
        if size < FORMATS[path.with_suffix("").suffix](held).size(rows):
            raise GenerationError(
                f"{path} is shorter than its record says; remove it, or start over with --overwrite"
            )
    except GenerationError:
        if not overwrite:
            raise
        return wanted, 0
    return held, rows


def _read_record(path: Path) -> tuple[GenerationSpec, int]:
    try:
        record: dict[str, Any] = json.loads(sidecar(path).read_bytes())
        rows = record.pop("rows")
        tuples = {name: tuple(value) for name, value in record.items() if isinstance(value, list)}
        return GenerationSpec(**(record | tuples)), rows
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GenerationError(
            f"{path} exists, but no record of `bgan generate` says what it holds; "
            "remove it, or start over with --overwrite"
        ) from error


def _check_same(path: Path, held: GenerationSpec, wanted: GenerationSpec) -> None:
    before, now = asdict(held), asdict(wanted)
    differences = [f"{name} {before[name]} -> {now[name]}" for name in before if before[name] != now[name]]
    if differences:
        raise GenerationError(
            f"{path} holds a part of other images ({', '.join(differences)}); "
            "finish those first, or start over with --overwrite"
        )


def _hold_alone(path: Path, file: FileIO) -> None:
    """Lock a file that no other process has locked."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The other process may have finished and renamed the file between the two calls.
        is_held = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        is_held = False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        return
    if not is_held:
        raise GenerationError(f"another process is writing {path}; wait for it, or choose another --output")
