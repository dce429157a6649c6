"""A measured figure, and how to time in turns."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: str
    bound: str = ""
    """What the project aims at, in words."""


def seconds(work: Callable[[], object], repeats: int = 1) -> float:
    """Wall time of one call of `work`, on average over `repeats`."""
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def in_turns(first: Callable[[], object], second: Callable[[], object], *, rounds: int, repeats: int = 1):
    """Median seconds of two pieces of work, timed in turns so that both meet the same machine."""
    pairs = [(seconds(first, repeats), seconds(second, repeats)) for _ in range(rounds)]
    return tuple(statistics.median(times) for times in zip(*pairs, strict=True))
