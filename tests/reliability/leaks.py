"""Whether a process holds more and more over time: what it has allocated, its memory, open files and threads.

What malloc holds moves little. Resident memory also moves with how free memory lies between what is held, by more
than a small leak; it is the bound for what malloc does not see.

And how small a leak that would have shown, by the noise of the very run: `power`.
"""

import csv
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import theilslopes

from .watched_server import ALLOCATED, watched_socket

_MIB = 1024 * 1024
_PAGE_BYTES = 4096
_SAMPLES_AT_LEAST = 10
_GROUPS = 40
_FIGURES = ("allocated_mib", "resident_mib", "files", "threads")
_SIMULATED_RUNS = 200
_LEAKS_MIB = (5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300)
WANTED_POWER = 0.95
LEAK_MIB = 10.0
"""The leak over a run that is to be found so often."""


@dataclass(frozen=True)
class Sample:
    """What a process holds at one time."""

    seconds: float
    allocated_mib: float
    resident_mib: float
    files: float
    threads: float


@dataclass(frozen=True)
class Bounds:
    """By how much each may rise over a run, along the line through all samples."""

    allocated_mib: float = 5.0
    resident_mib: float = 30.0
    files: float = 8.0
    threads: float = 8.0


@dataclass(frozen=True)
class Growth:
    """How one figure went."""

    name: str
    first: float
    """The median of the first tenth of the samples."""
    last: float
    """The median of the last tenth."""
    rise: float
    """Of the line of Theil and Sen, which passes over single peaks, over the run; without what is known."""
    limits: tuple[float, float]
    """Of the rise, with 95 % confidence."""
    bound: float

    @property
    def is_leak(self) -> bool:
        """Whether it rose by more than it may, and not by chance."""
        return self.rise > self.bound and self.limits[0] > 0

    def __str__(self) -> str:
        least, most = self.limits
        return (
            f"{self.name}: {self.first:.1f} at first, {self.last:.1f} at last, rises by {self.rise:.1f} "
            f"({least:.1f} to {most:.1f}); at most {self.bound:.1f}"
        )


@dataclass(frozen=True)
class Power:
    """How often the gate finds a leak in runs with the noise of this one."""

    found: float
    """The share of runs in which a leak of LEAK_MIB was found."""
    false: float
    """The share of runs without a leak in which one was."""
    smallest_mib: float | None
    """The smallest leak that was found in WANTED_POWER of the runs; None: none of those that were tried."""

    def __str__(self) -> str:
        least = "none" if self.smallest_mib is None else f"one of {self.smallest_mib:g} MiB"
        return (
            f"a leak of {LEAK_MIB:g} MiB a run is found in {self.found:.0%} of runs with this noise, {least} in "
            f"{WANTED_POWER:.0%}, and without a leak one is reported in {self.false:.0%}"
        )


def take_sample(pid: int) -> Sample:
    """What a watched process holds now, after it gave back what it had freed. Raises OSError when it is gone."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(watched_socket(pid))
        (allocated,) = ALLOCATED.unpack(connection.recv(ALLOCATED.size))
    folder = Path(f"/proc/{pid}")
    pages = int((folder / "statm").read_text().split()[1])
    files, threads = len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir()))
    return Sample(time.monotonic(), allocated / _MIB, pages * _PAGE_BYTES / _MIB, files, threads)


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """A line for each, with a header."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(Sample.__dataclass_fields__)
        table.writerows(astuple(sample) for sample in samples)


def growths(
    samples: Sequence[Sample], bounds: Bounds, seconds: float | None = None, known_mib: float = 0.0
) -> list[Growth]:
    """How each figure went, over a run of so many seconds (None: from the first sample to the last).

    known_mib: what is known to be kept over the run, evenly; it is taken off the line of what is allocated.
    Raises ValueError if there are too few samples to say.
    """
    if len(samples) < _SAMPLES_AT_LEAST:
        raise ValueError(f"{len(samples)} samples say nothing about leaks; take {_SAMPLES_AT_LEAST} at least")
    times = np.array([sample.seconds for sample in samples])
    return [
        _growth(
            name,
            times,
            np.array([getattr(each, name) for each in samples]),
            getattr(bounds, name),
            seconds,
            known_mib if name == "allocated_mib" else 0.0,
        )
        for name in _FIGURES
    ]


def power(samples: Sequence[Sample], bounds: Bounds, seconds: float | None = None, seed: int = 1) -> Power:
    """Simulate runs: this one's deviations from its line, in blocks drawn anew, and leaks of known sizes on top.

    Blocks keep what neighbours have in common. Raises ValueError as `growths` does.
    """
    growths(samples, bounds, seconds)
    times = np.array([sample.seconds for sample in samples])
    values = np.array([sample.allocated_mib for sample in samples])
    line, rng = theilslopes(*_lowest(values, times)), random.Random(seed)
    deviations = values - (line.slope * times + line.intercept)
    runs = [
        _growth("", times, _drawn_anew(deviations, rng), bounds.allocated_mib, seconds)
        for _ in range(_SIMULATED_RUNS)
    ]
    # A leak adds the same to every slope of the line, so to the rise and to its limits.
    shares = {
        leak: sum(run.rise + leak > run.bound and run.limits[0] + leak > 0 for run in runs) / len(runs)
        for leak in (0, *_LEAKS_MIB)
    }
    enough = [leak for leak in _LEAKS_MIB if shares[leak] >= WANTED_POWER]
    return Power(shares[LEAK_MIB], shares[0], min(enough, default=None))


def _growth(name, times, values, bound, seconds, known=0.0) -> Growth:
    tenth, span = max(1, len(values) // 10), seconds or times[-1] - times[0]
    ends = [float(np.median(part)) for part in (values[:tenth], values[-tenth:])]
    line = theilslopes(*_lowest(values, times))
    limits = float(line.low_slope * span - known), float(line.high_slope * span - known)
    return Growth(name, *ends, float(line.slope * span - known), limits, bound)


def _lowest(values, times):
    """What was held least in each of at most _GROUPS runs of neighbours, at their middle times.

    What is not given back is in the least as much as in the median, and work in flight is not: a leak of 10 MiB an
    hour shows under load in 99 % of runs by it, and in 60 % by medians.
    """
    values, times = (np.array_split(each, min(_GROUPS, len(each))) for each in (values, times))
    return np.array([part.min() for part in values]), np.array([np.median(part) for part in times])


def _drawn_anew(deviations, rng):
    """As many of them, in blocks that begin anywhere."""
    length = max(1, round(len(deviations) ** 0.5))
    starts = [rng.randrange(len(deviations)) for _ in range(0, len(deviations), length)]
    blocks = [np.take(deviations, range(start, start + length), mode="wrap") for start in starts]
    return np.concatenate(blocks)[: len(deviations)]
