"""An unfinished file of images: rows that are only ever appended, and a record of which of them are safe.

OUTPUT.partial holds the rows, OUTPUT.partial.json what they are and how many have been seen to disk. Whatever ends
the process, the record is true: rows beyond it are cut off when the file is gone on with.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import GenerationError
from .atomic import write_json
from .formats import FORMATS, Format, Labels, Origin

_RECORD_SECONDS = 1.0
_TUPLES = ("image_shape", "labels")  # JSON has lists


class PartialFile:
    """The unfinished file of an output, held by one process at a time.

    A context manager: leaving it removes a file without images, and records what another one holds.
    """

    def __init__(self, output: Path) -> None:
        """Take hold of the file. Raises GenerationError if another process has it, and OSError."""
        self.path = output.with_name(f"{output.name}.partial")
        self.rows = 0
        """Images that are written."""
        self.recorded_rows = 0
        """Images that nothing short of losing the disk can take."""
        self._output = output
        self._record_path = output.with_name(f"{output.name}.partial.json")
        self._origin: Origin | None = None
        self._format: Format | None = None
        self._finished = False
        self._file = _open_alone(self.path)
        self._recorder = ThreadPoolExecutor(1, thread_name_prefix="record")
        self._recording: Future[None] | None = None
        self._recorded_at = float("-inf")  # the first rows are recorded at once

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._origin is not None and not self._finished:
                self._leave()
        finally:
            self._recorder.shutdown()
            os.close(self._file)

    def start(self, wanted: Origin, *, any_seed: bool, overwrite: bool) -> Origin:
        """Go on with the wanted images, where the file holds some; else begin them. Returns what they are.

        With `any_seed` images of another seed are the wanted ones too. Where the file holds other images,
        `overwrite` gives them up; without it GenerationError is raised.
        """
        origin, rows = self._agree(wanted, any_seed=any_seed, overwrite=overwrite)
        self._origin, self._format = origin, FORMATS[self._output.suffix](origin)
        self.rows = rows
        if rows == 0:
            os.ftruncate(self._file, 0)
            self._record(0)
            self._write(self._format.head)
        else:
            self.recorded_rows = rows
            os.ftruncate(self._file, self._size_of(self._format, rows))
            os.lseek(self._file, 0, os.SEEK_END)
        return origin

    def encode(self, packed_images: bytes) -> bytes | memoryview:
        """Packed images as rows of the file; may be called from several threads."""
        assert self._format is not None
        return self._format.rows(packed_images)

    def append(self, rows: bytes | memoryview, count: int) -> None:
        """Write the rows of the next `count` images. Raises OSError."""
        self._write(rows)
        self.rows += count
        if time.monotonic() - self._recorded_at >= _RECORD_SECONDS:
            self._recorded_at = time.monotonic()
            self._record_behind()

    def save(self) -> None:
        """See all that is written to disk, and record it. Raises OSError."""
        self._end_recording()
        self._record(self.rows)

    def finish(self, labels: Labels | None, check: Callable[[], None]) -> None:
        """Make the finished file of it, replacing what is there. `check` is called often and may raise."""
        assert self._format is not None
        self.save()
        self._format.finish(self.path, self._output, labels, check)
        self._finished = True
        self._record_path.unlink()

    def _agree(self, wanted: Origin, *, any_seed: bool, overwrite: bool) -> tuple[Origin, int]:
        """What to generate, and how many images of it are there."""
        size = os.fstat(self._file).st_size
        if size == 0:
            return wanted, 0
        try:
            held, rows = self._read_record()
            if any_seed:
                wanted = replace(wanted, seed=held.seed)
            self._check_same(held, wanted)
            if size < self._size_of(FORMATS[self._output.suffix](held), rows):
                raise GenerationError(
                    f"{self.path} is shorter than it was left; remove it, or start afresh with --overwrite"
                )
        except GenerationError:
            if not overwrite:
                raise
            return wanted, 0
        return held, rows

    def _read_record(self) -> tuple[Origin, int]:
        try:
            record = json.loads(self._record_path.read_bytes())
            rows = record.pop("rows")
            return Origin(**{**record, **{name: tuple(record[name]) for name in _TUPLES if name in record}}), rows
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise GenerationError(
                f"{self.path} is there, but no record of `bgan generate` says what it holds; "
                "remove it, or start afresh with --overwrite"
            ) from error

    def _check_same(self, held: Origin, wanted: Origin) -> None:
        before, now = asdict(held), asdict(wanted)
        differences = [f"{name} {before[name]} -> {now[name]}" for name in before if before[name] != now[name]]
        if differences:
            raise GenerationError(
                f"{self.path} holds a part of other images ({', '.join(differences)}); "
                "finish those first, or start afresh with --overwrite"
            )

    def _leave(self) -> None:
        """Keep what there is, or nothing."""
        if self.rows == 0:
            self.path.unlink(missing_ok=True)
            self._record_path.unlink(missing_ok=True)
            return
        with contextlib.suppress(OSError):  # then the record before this one holds
            self.save()

    def _write(self, content: bytes | memoryview) -> None:
        left = memoryview(content)
        while left:
            left = left[os.write(self._file, left) :]

    def _record_behind(self) -> None:
        """Record while the writing goes on; a disk that is slower than that is waited for."""
        self._end_recording()
        self._recording = self._recorder.submit(self._record, self.rows)

    def _end_recording(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.result()

    def _record(self, rows: int) -> None:
        assert self._origin is not None
        os.fsync(self._file)
        write_json(self._record_path, {**asdict(self._origin), "rows": rows})
        self.recorded_rows = rows

    @staticmethod
    def _size_of(file_format: Format, rows: int) -> int:
        return len(file_format.head) + rows * file_format.row_bytes


def _open_alone(path: Path) -> int:
    """Open or create a file that no other process has open this way."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The other process may have finished and renamed the file between the two calls.
        if os.path.samestat(os.fstat(file), path.stat()):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    raise GenerationError(f"another process is writing {path}; wait for it, or choose another --output")
