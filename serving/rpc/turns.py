"""A queue in which those who wait get their turns one after the other, however much each of them wants."""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Items by who wants them: first in, first out for each, and one of each in turn."""

    def __init__(self) -> None:
        self._items: dict[Hashable, deque[T]] = {}  # in the order of their turns; none is empty
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, who: Hashable, item: T) -> None:
        """Add an item; one who had none gets a turn after all others."""
        self._items.setdefault(who, deque()).append(item)
        self._count += 1

    def peek(self) -> T:
        """What `take` would return. Raises StopIteration if there is nothing."""
        return next(iter(self._items.values()))[0]

    def take(self) -> T:
        """The first item of whose turn it is, who then waits for all others. Raises StopIteration."""
        who = next(iter(self._items))
        items = self._items.pop(who)
        item = items.popleft()
        if items:
            self._items[who] = items
        self._count -= 1
        return item
