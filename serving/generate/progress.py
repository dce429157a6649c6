"""Shows how a generation goes: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

_BAR_INTERVAL_SECONDS = 0.1
_LINE_INTERVAL_SECONDS = 10.0


class ProgressDisplay:
    """Images done, images a second and the time left, as a context manager."""

    def __init__(self, console: Console, *, total: int, done: int) -> None:
        self._console = console
        self._total = total
        self._done_before = done
        self._started = self._shown = time.monotonic()
        self._bar = Progress(
            BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[status]}"), console=console, transient=True
        )
        self._task = self._bar.add_task("", total=total, completed=done, status="")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, done: int) -> None:
        """Show how many images are done; may be called as often as one likes."""
        now = time.monotonic()
        interval = _BAR_INTERVAL_SECONDS if self._console.is_terminal else _LINE_INTERVAL_SECONDS
        if now - self._shown < interval and done < self._total:
            return
        self._shown = now
        status = self._status(done, now)
        if self._console.is_terminal:
            self._bar.update(self._task, completed=done, status=status)
        else:
            say(self._console, status)

    def _status(self, done: int, now: float) -> str:
        rate = (done - self._done_before) / max(now - self._started, 1e-9)
        left = timedelta(seconds=round((self._total - done) / rate))
        return f"{done:,} of {self._total:,} images  {rate:,.0f} images/s  left {left}"


def say(console: Console, text: str) -> None:
    """Print a line as it stands: neither wrapped nor coloured, and brackets are no markup."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)
