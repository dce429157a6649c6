"""Processes of their own for servers and loads, and what Linux says that they cost."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

_TICKS = os.sysconf("SC_CLK_TCK")
_STOP_SECONDS = 20


@dataclass(frozen=True)
class Server:
    """Where a load goes."""

    target: str
    """host:port."""
    pid: int
    """Its process; what it costs is counted with all below it."""


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all below it, those that have ended included."""
    return sum(_own_seconds(each) for each in tree(pid))


def resident_mib(pid: int) -> float:
    """Resident memory of a process and all below it; pages that they share count for each."""
    return sum(_status(each, "VmRSS") for each in tree(pid)) / 1024


def peak_mib(pid: int) -> float:
    """Peak resident memory of a process and all below it, each at its own peak."""
    return sum(_status(each, "VmHWM") for each in tree(pid)) / 1024


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    below = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in _children(task)]
    return [pid, *[each for child in below for each in tree(child)]]


def run_json(module: str, *arguments: object) -> dict:
    """Run a module of this folder to its end; returns the JSON that it prints last."""
    result = subprocess.run(_command(module, arguments), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


@contextmanager
def running(module: str, *arguments: object, python: Path | str = sys.executable, log: Path | None = None):
    """A module of this folder as a process: yields it and the JSON of its first line, which it prints when ready.

    Its stderr goes to `log`. Raises RuntimeError if it ends before it is ready.
    """
    with log.open("wb") if log else nullcontext() as stderr:
        command = _command(module, arguments, python)
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        line = process.stdout.readline()
        if not line:
            last = log.read_text().strip().splitlines()[-1:] if log else []
            raise RuntimeError(": ".join([f"{module} ended with {process.wait()}", *last]))
        yield process, json.loads(line)
    finally:
        stop(process)


def stop(process: subprocess.Popen) -> None:
    """End a process by SIGTERM, and what it leaves of those below it by SIGKILL."""
    if process.poll() is None:
        pids = tree(process.pid)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def _command(module, arguments, python=sys.executable):
    return [python, "-m", f"tests.benchmarks.{module}", *map(str, arguments)]


def _own_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICKS


def _status(pid, key):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise ValueError(f"process {pid} has no {key}")


def _children(task):
    return (task / "children").read_text().split()
