"""An unfinished file of images: rows that are only ever appended, and a record of which of them are safe.

OUTPUT.partial holds the rows, OUTPUT.partial.labels their classes if the finished file has them, and
OUTPUT.partial.json what they are and how many have been seen to disk. Whatever ends the process, the record is
true: what lies beyond it is cut off when the file is resumed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import Any

from .._types import ImageBatch
from .formats import FORMATS, Format, OutputError, StreamPart, outputs, sidecar, write_json

_RECORD_SECONDS = 1.0
_LABEL_BYTES = 4


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError where a file cannot be written, or resumed, as far as can be known beforehand."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"--output: the folder {path.parent} does not exist")
    if path.is_dir():
        raise OutputError(f"--output {path} is a folder; name a file")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"--output: no permission for the folder {path.parent}")
    for each in outputs(path):
        if each.is_symlink():
            raise OutputError(f"{each} is a link; name what it leads to, {os.path.realpath(each)}")
        if each.exists() and not each.is_file():
            raise OutputError(f"{each} is no plain file, which could be resumed; name another")
    refuse_existing(path, overwrite=overwrite)


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError if a file is there and must not be replaced."""
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; --overwrite replaces it")


@contextmanager
def open_partial(output: Path, wanted: Mapping[str, Any], *, overwrite: bool = False) -> Iterator[PartialFile]:
    """Hold the unfinished file of an output, alone; leaving records what it holds, or removes it if it is empty.

    `wanted`: what is known of the images before they come, by the names of a StreamPart's fields. Where the file
    holds some of these images it is resumed; where it holds others `overwrite` discards them. Raises OutputError
    without it, or if another process holds the file, and OSError.
    """
    path = output.with_name(f"{output.name}.partial")
    with path.open("ab", buffering=0) as file, ExitStack() as stack:
        _hold_alone(path, file)
        partial = PartialFile(output, path, file, stack)
        try:
            if os.fstat(file.fileno()).st_size:
                partial.resume(wanted)
        except OutputError:
            if not overwrite:
                raise
        try:
            yield partial
        finally:
            partial.leave()


class PartialFile:
    """An unfinished file that is held; `open_partial` makes it."""

    def __init__(self, output: Path, path: Path, file: FileIO, stack: ExitStack) -> None:
        """`stack` closes what is opened beside the file."""
        self.output = output
        self.path = path
        self.part: StreamPart | None = None
        """What its images are; None: nothing has come yet."""
        self.rows = 0
        """How many images it has."""
        self._stack = stack
        self._file = file
        self._labels: FileIO | None = None
        self._format: Format | None = None
        self._is_finished = False
        self._recorded_at = float("-inf")  # the first rows are recorded at once

    def resume(self, wanted: Mapping[str, Any]) -> None:
        """Take what is there. Raises OutputError where it is not a part of the wanted images."""
        part, rows = _read_record(self.path)
        if not rows:  # the first ones had not come
            return
        before = asdict(part)
        differences = [
            f"{name} {before[name]} -> {value}" for name, value in wanted.items() if before[name] != value
        ]
        if differences:
            raise OutputError(
                f"{self.path} holds a part of other images ({', '.join(differences)}); "
                "finish those first, or start over with --overwrite"
            )
        self._open(part, rows)
        if any(os.fstat(file.fileno()).st_size < size for file, size in self._sizes()):
            self.part, self.rows = None, 0
            raise OutputError(
                f"{self.path} is shorter than its record says; remove it, or start over with --overwrite"
            )
        for file, size in self._sizes():
            file.truncate(size)

    def begin(self, part: StreamPart) -> None:
        """Make it ready for the first rows. Raises OutputError where the format cannot hold such images."""
        form = self._open(part, 0)
        for file, _ in self._sizes():
            file.truncate(0)
        self._record()
        _write(self._file, form.head)

    def append(self, batch: ImageBatch) -> None:
        """Write the next images. Raises OSError, and OutputError for others than the next."""
        assert self._format is not None
        part = self._format.part
        next_ones = (part.model, part.revision, part.seed, part.first_index + self.rows)
        if (batch.model, batch.revision, batch.seed, batch.first_index) != next_ones:
            raise OutputError(
                "the images that came are not the next of the stream; is the server another version?"
            )
        _write(self._file, self._format.rows(batch.packed_images))
        if self._labels is not None and batch.labels is not None:
            _write(self._labels, batch.labels.astype("<i4").tobytes())
        self.rows += len(batch)
        if time.monotonic() - self._recorded_at >= _RECORD_SECONDS:
            self._record()

    def finish(self, check: Callable[[], None]) -> None:
        """Make the finished file of it, replacing what is there. `check` is called often and may raise."""
        assert self._format is not None
        if self.rows != self._format.part.count:
            raise OutputError(f"the stream ended at image {self.rows:,} of {self._format.part.count:,}")
        self._record()
        if not hasattr(os, "O_DIRECTORY"):  # Windows moves no file that is open
            self._stack.close()
            self._file.close()
        self._format.finish(self.path, _labels_file(self.path), self.output, check)
        self._is_finished = True
        self._remove_others()

    def leave(self) -> None:
        """Keep what there is, or nothing."""
        if self._is_finished or self._file.closed:
            return
        if self.rows == 0:
            self.path.unlink(missing_ok=True)
            self._remove_others()
            return
        with suppress(OSError):  # then the record before this one holds
            self._record()

    def _open(self, part: StreamPart, rows: int) -> Format:
        """Settle what the file's images are."""
        form = FORMATS[self.output.suffix](part)
        if form.needs_labels and part.classes:
            self._labels = self._stack.enter_context(_labels_file(self.path).open("ab", buffering=0))
        self.part, self.rows, self._format = part, rows, form
        return form

    def _sizes(self) -> Iterator[tuple[FileIO, int]]:
        """The files, and how long they are with the rows that there are."""
        assert self._format is not None
        yield self._file, self._format.size(self.rows) if self.rows else 0
        if self._labels is not None:
            yield self._labels, self.rows * _LABEL_BYTES

    def _remove_others(self) -> None:
        for path in (sidecar(self.path), _labels_file(self.path)):
            path.unlink(missing_ok=True)

    def _record(self) -> None:
        assert self.part is not None
        for file, _ in self._sizes():
            os.fsync(file)
        write_json(sidecar(self.path), {**asdict(self.part), "rows": self.rows})
        self._recorded_at = time.monotonic()


def _labels_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.labels")


def _read_record(path: Path) -> tuple[StreamPart, int]:
    try:
        record: dict[str, Any] = json.loads(sidecar(path).read_bytes())
        rows = record.pop("rows")
        tuples = {name: tuple(value) for name, value in record.items() if isinstance(value, list)}
        record["classes"]  # of `bgan generate` it has none
        return StreamPart(**(record | tuples)), rows
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{path} exists, but no record of `bgan sample` says what it holds; "
            "remove it, or start over with --overwrite"
        ) from error


def _write(file: FileIO, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def _hold_alone(path: Path, file: FileIO) -> None:
    """Lock a file that no other process has locked, where there are locks."""
    try:
        import fcntl
    except ImportError:  # of Windows, where nobody removes a file that is open
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The other process may have finished and renamed the file between the two calls.
        is_held = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        is_held = False
    except OSError:  # a file system without locks
        return
    if not is_held:
        raise OutputError(f"another process is writing {path}; wait for it, or choose another --output")
