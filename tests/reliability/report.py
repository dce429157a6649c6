"""The report of a soak, in Markdown."""

import os
import platform
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from .deeds import Added
from .fuzzing import Tally
from .leaks import Growth, Power

_VERSIONS = ("bgan", "grpcio", "onnxruntime", "protobuf", "numpy", "hypothesis")


@dataclass
class Report:
    """What a soak saw."""

    seed: int
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    load: float = field(default_factory=lambda: os.getloadavg()[0])
    """Of the machine, before anything began."""
    minutes: float = 0
    faults: dict[str, list[str]] = field(default_factory=dict)
    """What each fault gave, each time."""
    not_here: dict[str, str] = field(default_factory=dict)
    """Faults that this machine cannot have, and why."""
    streams: Counter = field(default_factory=Counter)
    images: Counter = field(default_factory=Counter)
    """Images that were compared, by kind of caller."""
    retries: int = 0
    """Tries of clients to go on with a stream that was cut."""
    tally: Tally = field(default_factory=Tally)
    coverage: str = "not run"
    """What the coverage-guided fuzzer did."""
    growths: dict[str, list[Growth]] = field(default_factory=dict)
    """Of the steady server, at rest and under load."""
    powers: dict[str, Power] = field(default_factory=dict)
    """Likewise."""
    known_mib: float = 0
    """What gRPC itself is known to have kept."""
    not_at_rest: int = 0
    """How often the steady server did not come to rest, so that no sample was taken."""
    deeds: list[Added] = field(default_factory=list)
    """What the steady server kept of each deed."""
    controls: list[tuple[str, Growth, bool]] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The whole report."""
        verdict = f"{len(self.breaches)} promises were broken." if self.breaches else "No promise was broken."
        return [
            f"{self.began:%Y-%m-%d %H:%M} UTC, {self.minutes:.1f} minutes, seed {self.seed}:",
            _circumstances(self.load),
            "",
            f"**{verdict}**",
            "",
            *[f"- {breach}" for breach in self.breaches],
            *([""] if self.breaches else []),
            *self._fault_lines(),
            "",
            *self._load_lines(),
            "",
            *self._fuzz_lines(),
            "",
            *self._leak_lines(),
            "",
            *self._deed_lines(),
        ]

    def _fault_lines(self):
        yield "| Fault | Times | The last one gave |"
        yield "|---|---|---|"
        for name, given in self.faults.items():
            yield f"| {_words(name)} | {len(given)} | {given[-1]} |"
        for name, why in self.not_here.items():
            yield f"| {_words(name)} | not run | {why} |"

    def _load_lines(self):
        streams = ", ".join(f"{count:,} {kind}" for kind, count in self.streams.items())
        images = f"{self.images.total():,} images, each compared with `bgan generate`"
        yield f"The load beside them: {streams}; {images}."
        yield f"Clients tried {self.retries:,} times to go on with a stream that a fault had cut."

    def _fuzz_lines(self):
        codes = ", ".join(f"{code} {count:,}" for code, count in self.tally.codes().most_common())
        below = [end for end in self.tally.ends if end.startswith("frames ")]
        methods = {end.partition(" ")[0] for end in self.tally.ends if end not in below}
        calls = sum(self.tally.ends[end] for end in below)
        yield f"Fuzzed over the wire: {self.tally.count - calls:,} inputs to {len(methods)} methods, {codes}."
        rules = len({end.rpartition(": ")[0] for end in below})
        yield f"Fuzzed below gRPC: {calls:,} calls that are wrong in one of {rules} ways, or in several."
        yield f"Guided by coverage (atheris): {self.coverage}."

    def _leak_lines(self):
        yield "| Process | Figure | At first | At last | Rise of the line (95 %) | At most | |"
        yield "|---|---|---|---|---|---|---|"
        for where, found in self.growths.items():
            for growth in found:
                said = "a leak" if growth.is_leak else "no leak"
                yield _growth_line(f"the server of the soak, {where}", growth, said)
        for name, growth, is_right in self.controls:
            said = "a leak" if growth.is_leak else "no leak"
            yield _growth_line(f"control: {name}", growth, said if is_right else f"**{said}: wrong**")
        yield ""
        for where, power in self.powers.items():
            yield f"- The gate {where}: {power}."
        yield f"- Taken off the rises: {self.known_mib:.1f} MiB, what gRPC keeps of cancelled calls (#43360)."
        if self.not_at_rest:
            yield f"- {self.not_at_rest} times the server did not come to rest; they are no samples."

    def _deed_lines(self):
        yield "| Done to the server | Times a round | Second round, KiB | Third, KiB | Bytes each | Files | |"
        yield "|---|---|---|---|---|---|---|"
        for added in self.deeds:
            rounds = " | ".join(f"{1024 * mib:+,.0f}" for mib in added.mib)
            files, said = (
                ", ".join(f"{each:+.0f}" for each in added.files),
                "a leak" if added.is_leak else "no leak",
            )
            yield f"| {added.deed} | {added.count:,} | {rounds} | {added.bytes_each:,.0f} | {files} | {said} |"


def _growth_line(process, growth, said):
    rise = "{:,.1f} ({:,.1f} to {:,.1f})".format(growth.rise, *growth.limits)
    figures = f"{growth.first:,.1f} | {growth.last:,.1f} | {rise} | {growth.bound:,.1f}"
    return f"| {process} | {_words(growth.name)} | {figures} | {said} |"


def _words(name):
    return name.replace("_", " ")


def _circumstances(load):
    found = re.search(r"^model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    versions = ", ".join(f"{name} {version(name)}" for name in _VERSIONS)
    cpu = found[1] if found else platform.machine()
    return (
        f"{os.cpu_count()} cores of {cpu}, load {load:.1f} before; Python {platform.python_version()}, {versions}."
    )
