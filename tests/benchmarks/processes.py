"""Processes of their own for servers and loads, and what Linux says that they cost."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ROOT

_TICKS = os.sysconf("SC_CLK_TCK")


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
    """Run a module of this folder to its end; returns the JSON that it prints."""
    with start_json(module, *arguments) as result:
        return result()


@contextmanager
def start_json(module: str, *arguments: object):
    """A module of this folder as a process; gives a function that waits for its end and returns its JSON."""
    process = subprocess.Popen(_command(module, arguments), cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def result():
        output, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{module} {' '.join(map(str, arguments))} ended with {process.returncode}")
        return json.loads(output.splitlines()[-1])

    try:
        yield result
    finally:
        stop(process)


@contextmanager
def running(module: str, *arguments: object, python: str = sys.executable):
    """A module of this folder as a process, once it has printed its first line: (process, that line's JSON)."""
    process = subprocess.Popen(_command(module, arguments, python), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{module} ended with {process.wait()} before it was ready")
        yield process, json.loads(line)
    finally:
        stop(process)


def stop(process: subprocess.Popen) -> None:
    """End a process and all below it."""
    pids = tree(process.pid) if process.poll() is None else []
    for pid in pids:
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
