"""Lines on stderr that nobody waits for: a queue, a thread that writes, and a pipe for what libraries write."""

import os
import re
import sys
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

_MAX_LINES = 4096
_SECONDS_TO_STOP = 0.5
_ABSL = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ (.*)")  # how gRPC's core begins a line
_STDERR = 2


class LogWriter:
    """Writes text to a file descriptor from a thread; drops what is too much while its reader stands still."""

    def __init__(self, descriptor: int, tell_dropped: Callable[[int], str]) -> None:
        """`tell_dropped`: the line that says how many texts were dropped."""
        self.dropped = 0
        """Texts that were dropped so far."""
        self._descriptor = descriptor
        self._tell_dropped = tell_dropped
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._thread = Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Write it soon, or count it as dropped; never waits."""
        if self._queue.qsize() >= _MAX_LINES:
            self.dropped += 1
        else:
            self._queue.put(text)

    def flush(self) -> None:
        """Nothing: the thread writes at once."""

    def stop(self) -> None:
        """Write what is left, if the reader takes it soon."""
        self._queue.put(None)
        self._thread.join(_SECONDS_TO_STOP)

    def _write_all(self) -> None:
        told = 0
        while (text := self._queue.get()) is not None:
            if not self._write(text):
                return
            if (dropped := self.dropped) > told:
                self._write(self._tell_dropped(dropped - told))
                told = dropped

    def _write(self, text: str) -> bool:
        left = text.encode(errors="backslashreplace")
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:  # its reader is gone; nobody can be told
            return False
        return True


class StderrPipe:
    """What the process's libraries write to stderr, line by line; `original` is the stderr that was there before.

    The pipe is read by a thread. A library whose text finds no room in it loses the text and goes on.
    """

    def __init__(self, log: Callable[[str, str], None]) -> None:
        """`log` gets the level's first letter and the text of each line."""
        sys.stderr.flush()
        self.original = os.dup(_STDERR)
        self._log = log
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        os.dup2(writing, _STDERR)
        os.close(writing)
        self._thread = Thread(target=self._read_all, args=(reading,), name="stderr", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Put the stderr back, and log what is left."""
        os.dup2(self.original, _STDERR)
        self._thread.join(_SECONDS_TO_STOP)

    def _read_all(self, reading: int) -> None:
        with open(reading, errors="backslashreplace") as lines:
            for line in lines:
                found = _ABSL.fullmatch(line.rstrip("\n"))
                level, text = found.groups() if found else ("E", line.rstrip("\n"))
                if text:
                    self._log(level, text)
