"""Signals that ask for a stop, noted so that work can end at a safe point."""

import signal
import threading
from types import FrameType
from typing import Self


class StopSignals:
    """While entered, the first SIGINT, SIGTERM or SIGHUP is only noted; a second one acts as usual.

    A SIGHUP that is ignored, as under nohup, stays ignored. Only the main thread hears of signals: entered in
    another one, nothing is noted.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> Self:
        noted = [signal.SIGINT, signal.SIGTERM]
        if threading.current_thread() is not threading.main_thread():
            self._previous = {}
            return self
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            noted.append(signal.SIGHUP)
        self._previous = {each: signal.signal(each, self._note) for each in noted}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self.__exit__()
