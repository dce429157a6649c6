"""Lines for the user on a rich console."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from .text import printable

_MAX_TEXT = 100_000
_WIDEST = 1000  # columns
PLAIN_INTERVAL_SECONDS = 10.0
"""Between two lines of progress where there is no terminal."""


def say(console: Console, text: str) -> None:
    """Print a text as it is: neither wrapped nor coloured, brackets are no markup and escapes no commands."""
    text = printable(text, _MAX_TEXT, keep="\n\t")  # it may name files and folders
    console.print(text, highlight=False, soft_wrap=True, markup=False, emoji=False)


def show_table(console: Console, table: Table) -> None:
    """Print a table; on a terminal too narrow for its words it runs over the edge, and loses none of them."""
    least = Measurement.get(console, console.options.update(width=_WIDEST), table).minimum
    width = console.width
    console.width = max(width, least)
    try:
        console.print(table)
    finally:
        console.width = width


@contextmanager
def progress_line(console: Console) -> Iterator[Callable[[str], None]]:
    """Show what is being done: in one live line on a terminal, else line by line."""
    if not console.is_terminal:
        yield lambda text: say(console, text)
        return
    with console.status("starting") as status:
        yield status.update


@contextmanager
def counting_bar(console: Console, text: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show (done, of how many): on a terminal as a bar, from the first call on, else as lines."""
    if not console.is_terminal:
        yield counted(lambda line: say(console, line), text)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(text, markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task("", total=None)

    def show(done: int, total: int | None) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        bar.stop()


def counted(report: Callable[[str], None], text: str) -> Callable[[int, int | None], None]:
    """A function that reports (done, of how many) every ten seconds, with the time left where it is known."""
    last = begun = 0.0
    before: int | None = None

    def note(done: int, total: int | None) -> None:
        nonlocal last, begun, before
        now = time.monotonic()
        if before is None:
            last, begun, before = now, now, done
        if now - last < PLAIN_INTERVAL_SECONDS:
            return
        last, line = now, f"{text}: {done:,}"
        if total is not None:
            line += f" of {total:,}"
            if done > before:
                left = (now - begun) * (total - done) / (done - before)
                line += f", {timedelta(seconds=round(left))} left"
        report(line)

    return note
