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

    file_sha256: str = ""
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
    """Since when it is at that, or has nothing to do, or starts."""
    is_ready: bool = False
    """Whether it has started; what comes before is no file's fault."""
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
        """Take what is found within that time; returns with the first of it, or if this is closed.

        The time is that of the checks: while a process starts, it stands still.
        """
        left = seconds
        while not self.is_closed:
            self._tend()
            began = time.monotonic()
            try:
                said = self._said.get(timeout=min(left, _TICK_SECONDS)) if left > 0 else self._said.get_nowait()
            except queue.Empty:
                said = None
            if all(each.is_ready for each in self._processes):
                left -= time.monotonic() - began
            if said is not None:
                self._note(*said)
            if self._said.empty() and (self._found or left <= 0):
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
            for each in [*self._processes]:
                each.process.kill()
        self._said.put(None)

    def _is_known(self, file: FileSnapshot) -> bool:
        return file in self._waiting or any(each.file == file for each in self._processes)

    def _tend(self) -> None:
        """Hand out what waits, and end what takes too long or has nothing to do."""
        now = time.monotonic()
        for each in [*self._processes]:
            seconds = now - each.since
            if seconds > (_IDLE_SECONDS if each.is_ready and each.file is None else self.wall_seconds):
                self._processes.remove(each)  # it may stand still in the system, so that even this does not end it
                each.process.kill()
                for file in self._files_of(each):
                    self._fail(file, f"is not checked within {seconds:.0f} s", pause_seconds=seconds)
            elif each.file is not None and not each.is_slow and seconds > self.slow_seconds:
                each.is_slow = True
                self._step_back(each)
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

    def _step_back(self, slow: _Process) -> None:
        if self.is_polite and sys.platform != "win32":
            with suppress(OSError):  # it has just ended
                os.setpriority(os.PRIO_PROCESS, slow.process.pid, _NICENESS)

    def _idle(self) -> _Process | None:
        """A process that is free, or, where all are slow, a new one that will be."""
        for each in self._processes:
            if each.is_ready and each.file is None and each.process.poll() is None:
                return each
        if len(self._processes) >= _MAX_PROCESSES or not all(each.is_slow for each in self._processes):
            return None
        self._start()
        return None

    def _start(self) -> None:
        with self._starting:
            if self.is_closed:
                return
            try:
                started = _Process(_prepared.pop() if _prepared else _popen())
                threading.Thread(target=self._listen, args=(started,), name="model check", daemon=True).start()
            except (OSError, MemoryError, RuntimeError) as error:  # no more files, memory, processes or threads
                while self._waiting:
                    self._fail(self._waiting.pop(0), f"cannot be checked now ({error or type(error).__name__})")
                return
            self._processes.append(started)

    def _listen(self, started: _Process) -> None:
        with started.process as process:
            for line in process.stdout or ():
                if line.endswith(b"\n"):  # or it was ended in the middle of it
                    self._said.put((started, line))
        self._said.put((started, b""))

    def _note(self, said_by: _Process, line: bytes) -> None:
        now = time.monotonic()
        took = now - said_by.since
        if not line:
            left = self._files_of(said_by) if said_by in self._processes else []
            self._processes = [each for each in self._processes if each is not said_by]
            for unchecked in left:
                self._fail(unchecked, self._end_of(said_by.process), pause_seconds=_PAUSE * took)
            return
        file = said_by.file
        said_by.file, said_by.since, said_by.is_slow, said_by.is_ready = None, now, False, True
        if file is None:  # it has started
            return
        answer = json.loads(line)
        if text := answer.pop("error", ""):
            pause = _PAUSE * took if answer.pop("took_too_much", False) else 0.0
            self._found[file] = Check(error=ModelFileError(f"{file.path} {text}", **answer), pause_seconds=pause)
        else:
            self._found[file] = Check(**answer)

    def _files_of(self, gone: _Process) -> list[FileSnapshot]:
        """What a process that is gone leaves unchecked: its file, or all that wait, if it never started."""
        if gone.is_ready:
            return [] if gone.file is None else [gone.file]
        waiting, self._waiting = self._waiting, []
        return waiting

    def _fail(self, file: FileSnapshot, text: str, *, pause_seconds: float = 0.0) -> None:
        error = ModelFileError(f"{file.path} {text}", may_pass=True)
        self._found[file] = Check(error=error, pause_seconds=pause_seconds)

    def _end_of(self, process: subprocess.Popen[bytes]) -> str:
        """What the end of a process says of the file that it was at."""
        code = process.wait()
        if code == -getattr(signal, "SIGXCPU", 0):
            return f"takes more than {self.cpu_seconds} s of a core to check"
        return f"cannot be checked: the process that tried it ended with {code}"


def _popen() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "bgan.serving.models.check_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,  # Ctrl-C is for the asker, which ends this one
    )
