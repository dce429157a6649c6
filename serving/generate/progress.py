"""Shows how a generation goes: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

_BAR_INTERVAL_SECONDS = 0.1
_LINE_INTERVAL_SECONDS = 10.0


@contextmanager
def progress_display(console: Console, *, total: int, done: int) -> Iterator[Callable[[int], None]]:
    """Shows images done, images a second and the time left; call it with the images done, as often as you like."""
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
        left = timedelta(seconds=round((total - now_done) / rate))
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
