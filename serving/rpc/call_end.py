"""What a call holds until it has ended for gRPC too, which sends its last message and its status as one."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

_held: ContextVar[list[Callable[[], object]]] = ContextVar("held")


def hold_until_end() -> asyncio.Task[Any]:
    """Begin a call of this task, which it returns: what `at_end` is given is called when the task has ended."""
    task = asyncio.current_task()
    assert task is not None  # calls are answered in tasks
    held: list[Callable[[], object]] = []
    _held.set(held)
    task.add_done_callback(lambda _: _let_go(held))
    return task


def at_end(let_go: Callable[[], object]) -> None:
    """Call a function once the call of this task has ended: its last message was taken, or never will be."""
    _held.get().append(let_go)


def _let_go(held: list[Callable[[], object]]) -> None:
    while held:
        held.pop()()
