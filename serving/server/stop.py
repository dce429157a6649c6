"""When a process is to stop, and that it then ends in time, whatever it waits for."""

import asyncio
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, Self

_SECONDS_TO_LOG = 0.1
_SECONDS_TO_FINISH = 0.2  # what the process may take beyond that before the system ends it
_BEGIN = b"\0"  # no signal has this number
_log = logging.getLogger(__name__)


class Stop:
    """Begins with a signal, or with `begin`; after `seconds` it ends the process by force, with code 1.

    Python runs a signal's handler once the main thread is awake. A signal that comes just before that thread
    waits, or to another thread, does not wake it; so its number is written into a pipe, too (`set_wakeup_fd`), and
    the thread that reads it begins the stop. That thread ends the process; should it not come to run, or the
    process not end after its last line of Python, the system does (SIGALRM).
    """

    def __init__(self, *signals: signal.Signals, seconds: float) -> None:
        """For the running event loop, in the main thread. A SIGHUP that is ignored, as under nohup, stays so."""
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._has_begun = False
        self._is_over = threading.Event()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        taken = [each for each in signals if each != signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN]
        self._handlers: dict[signal.Signals, Any] = dict.fromkeys(taken)
        self._wakeup_before = -1

    def __enter__(self) -> Self:
        threading.Thread(target=self._end_late, name="stop", daemon=True).start()
        for number in self._handlers:
            self._handlers[number] = signal.signal(number, self._handle)
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """After an error the process need not end; else its time is still running."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._writer)
        if kind is not None:
            self._is_over.set()
            _end_after(0)

    def is_set(self) -> bool:
        """Whether it has begun."""
        return self._stop.is_set()

    async def wait(self) -> None:
        """Return once it has begun."""
        await self._stop.wait()

    def begin(self) -> None:
        """Let the process stop: from now on it has its seconds."""
        if self._has_begun:
            return
        self._start_time()
        os.write(self._writer, _BEGIN)  # a signal's handler must not take a lock, as the start of a thread does

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.begin()

    def _start_time(self) -> None:
        self._has_begun = True
        _end_after(self._seconds + _SECONDS_TO_LOG + _SECONDS_TO_FINISH)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._stop.set)

    def _end_late(self) -> None:
        try:
            if self._read_begin():
                self._end_in_time()
        finally:
            os.close(self._reader)

    def _read_begin(self) -> bool:
        """Wait for a signal or `begin`; False where the process goes on without a stop."""
        while byte := os.read(self._reader, 1):
            if byte == _BEGIN or byte[0] in self._handlers:  # other signals have handlers, too
                return True
        return False

    def _end_in_time(self) -> None:
        if not self._has_begun:
            self._start_time()
        # An event: where a program's clock is faked, the system may refuse the deadline of time.sleep.
        if self._is_over.wait(self._seconds):
            return
        # The log may be what everything waits for.
        text = f"still not stopped after {self._seconds:.1f} s; the process ends as it is"
        threading.Thread(target=_log.error, args=(text,), daemon=True).start()
        self._is_over.wait(_SECONDS_TO_LOG)
        os._exit(1)


def _end_after(seconds: float) -> None:
    """Let the system end this process; 0: no longer."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, seconds)
