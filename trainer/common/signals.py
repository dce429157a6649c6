"""Signals that ask for a stop, noted so that work can end at a safe point."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self


class StopSignals:
    """While entered, the first SIGINT or SIGTERM is only noted; a second one acts as usual."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> Self:
        self._previous = {each: signal.signal(each, self._note) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self.__exit__()


@contextmanager
def held_back() -> Iterator[None]:
    """Let a SIGINT or SIGTERM act after the block: an interrupted import may fail in any way, or continue."""
    with StopSignals() as signals:
        yield
    if signals.received is not None:
        signal.raise_signal(signals.received)
