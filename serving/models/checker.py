"""Has model files checked and tried in other processes, so that a slow or hostile one keeps nobody waiting."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..config.limits import CHECK_CPU_SECONDS, CHECK_MEMORY_BYTES
from ..errors import ModelFileError
from .model_files import FileSnapshot

_MAX_PROCESSES = 8
_NICENESS = 10
_IDLE_SECONDS = 10.0  # after which a process that has nothing to do is ended: models often come one after another
_TICK_SECONDS = 0.2
_PAUSE = 20  # how many times as long as it took until a check that took too much is tried again


@dataclass(frozen=True, slots=True)
class Check:
    """What was found of a file: how to run it, or an error."""

    revision: str = ""
    tile_rows: int | None = None
    seconds_per_image: float = 0.0
    error: ModelFileError | None = None
    pause_seconds: float = 0.0
    """How long to wait before it is tried again, where the error may pass."""


@dataclass(eq=False, slots=True)
class _Process:
    process: subprocess.Popen[bytes]
    file: FileSnapshot | None = None
    """What it is at."""
    since: float = field(default_factory=time.monotonic)
    is_slow: bool = False


_prepared: list[subprocess.Popen[bytes]] = []


def prepare() -> None:
    """Start a process for this one's first checker: it loads its libraries while this one loads its own."""
    with suppress(OSError):
        _prepared.append(_popen())


class Checker:
    """A few processes and a queue of files. `close` may be called by any thread, all else by one at a time."""

    cpu_seconds = CHECK_CPU_SECONDS
    memory_bytes = CHECK_MEMORY_BYTES
    wall_seconds = 120.0
    slow_seconds = 2.0
    """After this the next file gets another process."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._waiting: list[FileSnapshot] = []
        self._found: dict[FileSnapshot, Check] = {}
        self._processes: list[_Process] = []
        # What the processes say: answers, and None at the end of each.
        self._said: queue.SimpleQueue[tuple[_Process, bytes] | None] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self.is_closed = False
        self.is_polite = False
        """Whether slow processes leave the cores to others: there are calls to answer."""

    def take(self, file: FileSnapshot) -> Check | None:
        """What was found of a file, once; None while it is being checked, which begins with the first call."""
        if file not in self._found and not self._is_known(file):
            self._waiting.append(file)
            self._tend()
        return self._found.pop(file, None)

    def has(self, file: FileSnapshot) -> bool:
        """Whether something was found of a file."""
        return file in self._found

    def wait(self, seconds: float) -> None:
        """Take what is found within that time; returns with the first of it, or if this is closed."""
        end = time.monotonic() + seconds
        while not self.is_closed:
            self._tend()
            left = end - time.monotonic()
            try:
                said = self._said.get(timeout=min(left, _TICK_SECONDS)) if left > 0 else self._said.get_nowait()
            except queue.Empty:
                if left <= 0:
                    return
                continue
            if said is not None:
                self._note(*said)
                self._tend()
                if self._said.empty():
                    return

    def keep_only(self, files: set[FileSnapshot]) -> None:
        """Give up all checks but those of these files."""
        self._waiting = [file for file in self._waiting if file in files]
        self._found = {file: found for file, found in self._found.items() if file in files}
        for each in self._processes:
            if each.file is not None and each.file not in files:
                each.process.kill()

    def close(self) -> None:
        """End all processes, and the wait of another thread."""
        with self._starting:
            self.is_closed = True
            for each in self._processes:
                each.process.kill()
        self._said.put(None)

    def _is_known(self, file: FileSnapshot) -> bool:
        return file in self._waiting or any(each.file == file for each in self._processes)

    def _tend(self) -> None:
        """Hand out what waits, and end what takes too long or has nothing to do."""
        now = time.monotonic()
        for each in [*self._processes]:
            if each.file is None and now - each.since > _IDLE_SECONDS:
                self._processes.remove(each)
                each.process.kill()
            elif each.file is not None and now - each.since > self.wall_seconds:
                each.process.kill()
            elif each.file is not None and not each.is_slow and now - each.since > self.slow_seconds:
                each.is_slow = True
                if self.is_polite and sys.platform != "win32":
                    with suppress(OSError):  # it has just ended
                        os.setpriority(os.PRIO_PROCESS, each.process.pid, _NICENESS)
        while self._waiting and (idle := self._idle()) is not None:
            idle.file, idle.since = self._waiting.pop(0), now
            request = {
                "path": os.fsencode(idle.file.path).hex(),
                "max_bytes": self._max_bytes,
                "cpu_seconds": self.cpu_seconds,
                "memory_bytes": self.memory_bytes,
            }
            with suppress(OSError):  # it has ended, which is noted in its turn
                idle.process.stdin.write(json.dumps(request).encode() + b"\n")  # type: ignore[union-attr]

    def _idle(self) -> _Process | None:
        """A process that is free, or a new one where all are slow."""
        for each in self._processes:
            if each.file is None and each.process.poll() is None:
                return each
        if len(self._processes) >= _MAX_PROCESSES or not all(each.is_slow for each in self._processes):
            return None
        return self._start()

    def _start(self) -> _Process | None:
        with self._starting:
            if self.is_closed:
                return None
            try:
                started = _Process(_prepared.pop() if _prepared else _popen())
                threading.Thread(target=self._listen, args=(started,), name="model check", daemon=True).start()
            except (OSError, MemoryError, RuntimeError) as error:  # no more files, memory, processes or threads
                text = f"cannot be checked now ({error or type(error).__name__})"
                file = self._waiting.pop(0)
                self._found[file] = Check(error=ModelFileError(f"{file.path} {text}", may_pass=True))
                return None
            self._processes.append(started)
        return started

    def _listen(self, started: _Process) -> None:
        with started.process as process:
            for line in process.stdout or ():
                self._said.put((started, line))
        self._said.put((started, b""))

    def _note(self, said_by: _Process, line: bytes) -> None:
        now = time.monotonic()
        file, took = said_by.file, now - said_by.since
        said_by.file, said_by.since, said_by.is_slow = None, now, False
        if not line and said_by in self._processes:
            self._processes.remove(said_by)
        if file is None:
            return
        try:
            answer = json.loads(line) if line else self._end_of(said_by.process, took)
        except ValueError:
            answer = self._end_of(said_by.process, took)
        if text := answer.pop("error", ""):
            pause = _PAUSE * took if answer.pop("took_too_much", False) else 0.0
            self._found[file] = Check(error=ModelFileError(f"{file.path} {text}", **answer), pause_seconds=pause)
        else:
            self._found[file] = Check(**answer)

    def _end_of(self, process: subprocess.Popen[bytes], took: float) -> dict[str, Any]:
        """What the end of a process says of the file that it was at."""
        if process.returncode == -getattr(signal, "SIGXCPU", 0) or took > self.wall_seconds:
            text = f"takes too long to check: {self.cpu_seconds} s of a core, or {self.wall_seconds:.0f} s"
        else:
            text = f"cannot be checked: the process that tried it ended with {process.returncode}"
        return {"error": text, "may_pass": True, "took_too_much": True}


def _popen() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "bgan.serving.models.check_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,  # Ctrl-C is for the asker, which ends this one
    )
