"""A measured figure, and how to time in turns."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: float | None
    """None: it was not measured; `bound` says why."""
    unit: str
    bound: str = ""
    """What the project aims at, in words."""


def seconds(
    work: Callable[[], object], repeats: int = 1, *, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Time of one call of `work`, on average over `repeats`."""
    start = clock()
    for _ in range(repeats):
        work()
    return (clock() - start) / repeats


def in_turns(
    first: Callable[[], object],
    second: Callable[[], object],
    *,
    rounds: int,
    repeats: int = 1,
    clock: Callable[[], float] = time.perf_counter,
):
    """Median seconds of two pieces of work, timed in turns so that both meet the same machine."""
    pairs = [tuple(seconds(work, repeats, clock=clock) for work in (first, second)) for _ in range(rounds)]
    return tuple(statistics.median(times) for times in zip(*pairs, strict=True))


def medians(results: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """By name, the median of each figure over the rounds."""
    return {
        name: {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        for name, rounds in results.items()
    }
