"""Signals that ask for a stop, noted so that work can end at a safe place."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_STOP = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def noted_stop_signals() -> Iterator[Callable[[], signal.Signals | None]]:
    """Only note the first SIGINT or SIGTERM, and yield what says which one came; a second one acts as always."""
    received: list[signal.Signals] = []
    previous = {number: signal.getsignal(number) for number in _STOP}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        restore()

    for number in _STOP:
        signal.signal(number, note)
    try:
        yield lambda: received[0] if received else None
    finally:
        restore()
