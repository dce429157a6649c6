"""Signals that stop a command which waits for images."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._types import ImageBatch


class Stopped(SystemExit):
    """A signal came while images were waited for, or was noted."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(128 + number)
        self.number = number

    code: int


@dataclass
class StopSignals:
    """The first SIGINT, SIGTERM or SIGHUP is raised where images are waited for, and else noted."""

    received: signal.Signals | None = None
    is_waiting: bool = False
    _previous: dict[signal.Signals, Any] = field(default_factory=dict)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """While entered; a second signal acts as usual. A SIGHUP that is ignored, as by nohup, stays ignored."""
        if threading.current_thread() is threading.main_thread():
            for number in _noted_signals():
                self._previous[number] = signal.signal(number, self._note)
        try:
            yield
        finally:
            self._restore()

    def watched(self, batches: Iterable[ImageBatch]) -> Iterator[ImageBatch]:
        """The batches; a signal ends the wait for the next."""
        waiting = iter(batches)
        while True:
            self.is_waiting = True
            try:
                self.check()
                batch = next(waiting)
            except StopIteration:
                return
            finally:
                self.is_waiting = False
            yield batch

    def check(self) -> None:
        """Raise what was noted."""
        if self.received is not None:
            raise Stopped(self.received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()
        if self.is_waiting:
            raise Stopped(self.received)

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())


def _noted_signals() -> list[signal.Signals]:
    found = [signal.SIGINT, signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:
        found.append(hang_up)
    return found
