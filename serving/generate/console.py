"""What a long generation has to do with who runs it: signals, lines and a bar with the time left."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

_BAR_INTERVAL_SECONDS = 0.1
HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""None on Windows."""
_LINE_INTERVAL_SECONDS = 10.0
_SECONDS_SHOWN = 1e10  # of the time left, and more than can be waited for


def cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def noted_stop_signals() -> Iterator[Callable[[], signal.Signals | None]]:
    """Only note the first SIGINT, SIGTERM or SIGHUP, and yield what says which came; a second one acts as always.

    A SIGHUP that is ignored, as under nohup, stays ignored.
    """
    received: list[signal.Signals] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        handlers.close()

    with ExitStack() as handlers:
        noted = [signal.SIGINT, signal.SIGTERM]
        if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
            noted.append(HANGUP)
        for number in noted:
            handlers.callback(signal.signal, number, signal.getsignal(number))
            signal.signal(number, note)
        yield lambda: received[0] if received else None


@contextmanager
def progress_display(console: Console, *, total: int, done: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line now and then elsewhere; call it with the images done, as often as you like."""
    interval = _BAR_INTERVAL_SECONDS if console.is_terminal else _LINE_INTERVAL_SECONDS
    columns = BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[status]}")
    started = shown = time.monotonic()

    def update(now_done: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown < interval and now_done < total:
            return
        shown = now
        rate = (now_done - done) / max(now - started, 1e-9)
        left = timedelta(seconds=round(min((total - now_done) / max(rate, 1e-9), _SECONDS_SHOWN)))
        status = f"{now_done:,} of {total:,} images  {rate:,.0f} images/s  left {left}"
        bar.update(task, completed=now_done, status=status)
        if not console.is_terminal:
            say(console, status)

    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, completed=done, status="")
        yield update


def say(console: Console, text: str) -> None:
    """Print a line as it stands: neither wrapped nor coloured, and brackets are no markup."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)
