"""The trainer's commands, and the `bgan` command that hosts them."""

from .app import main, register

__all__ = ["main", "register"]
