"""Lines for the user on a rich console."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console


def say(console: Console, text: str) -> None:
    """Print a line as it stands: neither wrapped nor coloured, and brackets are no markup."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)


@contextmanager
def progress_line(console: Console) -> Iterator[Callable[[str], None]]:
    """Says what is being done: in one live line on a terminal, else line by line."""
    if not console.is_terminal:
        yield lambda text: say(console, text)
        return
    with console.status("starting") as status:
        yield status.update
