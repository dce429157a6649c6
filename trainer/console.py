"""Lines for the user on a rich console."""

from __future__ import annotations

from rich.console import Console


def say(console: Console, text: str) -> None:
    """Print a line as it stands: neither wrapped nor coloured, and brackets are no markup."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)
