"""A queue in which those who wait get their turns one after the other, however much each of them wants."""

from asyncio import Future
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")
Who = tuple[Hashable, ...]
"""Whom an item is for, such as a caller and one of his connections: these have turns among themselves."""


class Turns(Generic[T]):
    """Items by whom they are for: first in, first out for each, and one of each in turn."""

    def __init__(self) -> None:
        self._own: deque[T] = deque()
        self._others: dict[Hashable, Turns[T]] = {}  # in the order of their turns; none is empty
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, who: Who, item: T) -> None:
        """Add an item; for one who had none it comes after those of all others."""
        self._count += 1
        if not who:
            self._own.append(item)
        else:
            self._others.setdefault(who[0], Turns()).put(who[1:], item)

    def put_first(self, who: Who, item: T) -> None:
        """Add an item before the others of the same one."""
        self._count += 1
        if not who:
            self._own.appendleft(item)
        else:
            self._others.setdefault(who[0], Turns()).put_first(who[1:], item)

    def peek(self) -> T:
        """What `take` would return. Raises StopIteration if there is nothing."""
        return self._own[0] if self._own else next(iter(self._others.values())).peek()

    def take(self) -> T:
        """The first item of whose turn it is, who then waits for all others. Raises StopIteration."""
        self._count -= 1
        if self._own:
            return self._own.popleft()
        who = next(iter(self._others))
        other = self._others.pop(who)
        item = other.take()
        if other:
            self._others[who] = other
        return item

    def remove(self, who: Who, item: T) -> bool:
        """Take an item out before its turn; returns whether it was still there."""
        if not who:
            is_there = item in self._own
            if is_there:
                self._own.remove(item)
        else:
            other = self._others.get(who[0])
            is_there = other is not None and other.remove(who[1:], item)
            if other is not None and not other:
                del self._others[who[0]]
        self._count -= is_there
        return is_there


def wake_next(waiting: Turns[Future[None]]) -> bool:
    """Answer the next future that still waits; returns whether there was one."""
    while waiting:
        turn = waiting.take()
        if not turn.done():
            turn.set_result(None)
            return True
    return False
