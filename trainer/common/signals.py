"""Signals that ask for a stop, noted so that work can end at a safe place."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self


class StopSignals:
    """While entered, the first SIGINT or SIGTERM is only noted; a second one acts as it always does."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        for noted, handler in self._previous.items():
            signal.signal(noted, handler)  # type: ignore[arg-type]


@contextmanager
def held_back() -> Iterator[None]:
    """Let a SIGINT or SIGTERM act after the block: an import that is cut short may fail in any way, or go on."""
    with StopSignals() as signals:
        yield
    if signals.received is not None:
        signal.raise_signal(signals.received)
