"""What happens in a simulation, as its seed draws it: the hosts, and faults at their times, two at a time too."""

import random
from dataclasses import dataclass

FIRST, LAST = 4.0, 18.0
"""Between these seconds faults begin."""
PORTS = (50051, 50052)
KINDS = (
    *("reset", "cut", "cut in", "cut out", "slow"),
    *("kill", "terminate", "pause server", "pause supervisor", "pause client", "no processes", "no listener"),
    *("errors", "hang", "full disk"),
    *("deploy", "deploy torn", "replace", "revoke", "revoke torn"),
    *("unread streams", "unread watch", "no request", "garbage", "storm"),
)


@dataclass(frozen=True)
class Fault:
    """One fault of a host."""

    at: float
    """Seconds after the start."""
    seconds: float
    """How long it lasts."""
    kind: str
    port: int
    draw: float
    """From 0 to 1: what else there is to choose."""

    @property
    def end(self):
        return self.at + self.seconds

    def __str__(self):
        return f"{self.at:6.2f} to {self.end:6.2f} s: {self.kind} at {self.port} ({self.draw:.3f})"


@dataclass(frozen=True)
class Schedule:
    """All that a seed draws before a simulation begins."""

    seed: int
    workers: dict[int, int]
    """By host, 0: one process without a supervisor."""
    faults: tuple[Fault, ...]

    def __str__(self):
        hosts = ", ".join(f"{port} with {count or 'no'} workers" for port, count in self.workers.items())
        return "\n".join([f"seed {self.seed}: {hosts}", *(f"  {fault}" for fault in self.faults)])


def draw(seed):
    """The schedule of a seed."""
    rng = random.Random(f"schedule {seed}")
    workers = {port: rng.choice((0, 0, 2, 3)) for port in PORTS[: rng.choice((1, 2, 2))]}
    faults = []
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        first = _fault(rng, rng.uniform(FIRST, LAST), workers)
        faults.append(first)
        if rng.random() < 0.5:  # another one while it lasts
            where = workers if rng.random() < 0.3 else (first.port,)
            faults.append(_fault(rng, rng.uniform(first.at, first.end), where))
    return Schedule(seed, workers, tuple(sorted(faults, key=lambda fault: fault.at)))


def _fault(rng, at, workers):
    seconds = rng.choice((0.2, 1.0, 3.0, 8.0, 12.0)) * rng.uniform(0.5, 1.5)
    return Fault(round(at, 3), round(seconds, 3), rng.choice(KINDS), rng.choice(tuple(workers)), rng.random())
