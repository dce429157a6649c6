"""Whether a process holds more and more: its memory, open files and threads, as Linux counts them, over time."""

import csv
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from scipy.stats import theilslopes

_MIB = 1024 * 1024
_PAGE_BYTES = 4096
_SAMPLES_AT_LEAST = 10


@dataclass(frozen=True)
class Sample:
    """What a process holds at one time."""

    seconds: float
    resident_mib: float
    files: float
    threads: float


@dataclass(frozen=True)
class Bounds:
    """By how much each may rise over a run, along the line through all samples."""

    resident_mib: float = 16.0
    files: float = 8.0
    threads: float = 4.0


@dataclass(frozen=True)
class Growth:
    """How one figure went."""

    name: str
    first: float
    """The median of the first tenth of the samples."""
    last: float
    """The median of the last tenth."""
    rise: float
    """Of the line of Theil and Sen, which passes over single peaks, from the first sample to the last."""
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


def take_sample(pid: int) -> Sample:
    """What a process holds now. Raises FileNotFoundError when it is gone."""
    folder = Path(f"/proc/{pid}")
    pages = int((folder / "statm").read_text().split()[1])
    files, threads = len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir()))
    return Sample(time.monotonic(), pages * _PAGE_BYTES / _MIB, files, threads)


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """A line for each, with a header."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(Sample.__dataclass_fields__)
        table.writerows(astuple(sample) for sample in samples)


def growths(samples: Sequence[Sample], bounds: Bounds) -> list[Growth]:
    """How each figure went. Raises ValueError if there are too few samples to say."""
    if len(samples) < _SAMPLES_AT_LEAST:
        raise ValueError(f"{len(samples)} samples say nothing about leaks; take {_SAMPLES_AT_LEAST} at least")
    times = [sample.seconds for sample in samples]
    found, tenth = [], max(1, len(samples) // 10)
    for name in ("resident_mib", "files", "threads"):
        values = [getattr(sample, name) for sample in samples]
        line, span = theilslopes(values, times), times[-1] - times[0]
        limits = float(line.low_slope * span), float(line.high_slope * span)
        ends = [sorted(part)[len(part) // 2] for part in (values[:tenth], values[-tenth:])]
        found.append(Growth(name, *ends, float(line.slope * span), limits, getattr(bounds, name)))
    return found
