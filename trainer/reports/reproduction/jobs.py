"""Trainings as processes of their own, a few at a time, on this machine or on the nodes of a Ray cluster."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ...common.console import say
from ...common.errors import Interrupted
from ...common.signals import StopSignals
from ...config.command import train_options
from ...config.training import TrainingConfig

_POLL_SECONDS = 0.2
_PLAIN_INTERVAL_SECONDS = 30.0
_COMMAND = "from bgan.trainer.cli.app import main; main()"
_STEP = re.compile(r"step (\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Job:
    """A training to be done: its settings, where its run folder goes, and its log."""

    config: TrainingConfig
    folder: Path
    log: Path

    @property
    def name(self) -> str:
        """The name of its run."""
        return self.folder.name

    def command(self) -> list[str]:
        """The `bgan train` that does it."""
        settings = {"preset": self.config.preset, **self.config.settings(), **self.config.data.options.changed()}
        settings.pop("data_digest")  # is no option
        return ["train", "--name", self.name, "--runs-dir", str(self.folder.parent), *train_options(settings)]

    def start(self, threads: int) -> subprocess.Popen[bytes]:
        """The process that does it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            return subprocess.Popen(
                # -P: a folder named bgan where the command is run is not the package
                [sys.executable, "-P", "-c", _COMMAND, *self.command()],
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "NO_COLOR": "1"},
                start_new_session=True,  # a Ctrl-C reaches this process alone, which passes it on once
            )

    def progress(self) -> tuple[int, int | None]:
        """Iterations (done, in all) by the last line of its log; (0, None) before the first."""
        found = _STEP.findall(self.log.read_text(encoding="utf-8", errors="replace"))
        return (int(found[-1][0]), int(found[-1][1])) if found else (0, None)

    def last_words(self) -> str:
        """The last line of its log: why it failed."""
        lines = reversed(self.log.read_text(encoding="utf-8", errors="replace").splitlines())
        return next((line.removeprefix("bgan: ") for line in lines if line.strip()), "it said nothing")


class Training(Protocol):
    """A job that runs: a process, or what stands for one elsewhere."""

    def poll(self) -> int | None:
        """Its exit code; None: it has not ended."""

    def terminate(self) -> None:
        """Ask it to save and end."""

    def wait(self) -> int:
        """Its exit code, when it has ended."""


def run_jobs(
    jobs: Iterable[Job], at_once: int | None, console: Console, *, ray: str | None = None
) -> dict[str, str]:
    """Run all jobs, `at_once` at a time, and show how they go; why each that failed did, by name.

    at_once: None: one for each core, of the cluster if it is one.
    ray: the address of a Ray cluster whose nodes run them; None: this machine does.
    Raises Interrupted after a signal, when every process has saved its run, and RunError where no cluster answers.
    """
    waiting = deque(jobs)
    running: dict[Training, Job] = {}
    failed: dict[str, str] = {}
    with (
        _host(at_once, ray) as (start, most),
        StopSignals() as signals,
        _Bars(len(waiting), console) as bars,
    ):
        while waiting or running:
            while waiting and len(running) < most:
                job = waiting.popleft()
                running[start(job)] = job
            time.sleep(_POLL_SECONDS)
            if signals.received is not None:
                _stop(running, signals.received)
            codes = {process: process.poll() for process in running}
            for process, code in codes.items():
                if code is None:
                    continue
                job = running.pop(process)
                if code:
                    failed[job.name] = job.last_words()
                bars.end(job, failed.get(job.name))
            bars.show(running.values())
    return failed


@contextmanager
def _host(at_once: int | None, ray: str | None) -> Iterator[tuple[Callable[[Job], Training], int]]:
    """What starts a job, and how many at once."""
    if ray is None:
        most = at_once or os.cpu_count() or 1
        threads = max(1, (os.cpu_count() or 1) // most)
        yield lambda job: job.start(threads), most
        return
    from .cluster import ray_cluster

    with ray_cluster(ray, at_once) as cluster:
        yield lambda job: cluster.start(job.command(), job.log, job.folder.parent), cluster.at_once


def _stop(running: Iterable[Training], received: signal.Signals) -> None:
    for process in running:
        process.terminate()
    for process in running:
        process.wait()
    raise Interrupted(
        f"{received.name}: stopped, and the running trainings were saved; the same command resumes them",
        exit_code=128 + received,
    )


class _Bars(Progress):
    """A bar for each running job and one for all, or a line now and then where there is no terminal."""

    def __init__(self, total: int, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(*columns, console=console, disable=not console.is_terminal)
        self._all = self.add_task("runs", total=total)
        self._of_jobs: dict[str, TaskID] = {}
        self._last_lines = time.monotonic()

    def show(self, running: Iterable[Job]) -> None:
        if self.disable and time.monotonic() - self._last_lines < _PLAIN_INTERVAL_SECONDS:
            return
        self._last_lines = time.monotonic()
        for job in running:
            done, total = job.progress()
            if self.disable:
                say(self.console, f"{job.name}: step {done}/{total or '?'}")
            elif job.name in self._of_jobs:
                self.update(self._of_jobs[job.name], completed=done, total=total)
            else:
                self._of_jobs[job.name] = self.add_task(job.name, completed=done, total=total)

    def end(self, job: Job, failure: str | None) -> None:
        self.advance(self._all)
        if job.name in self._of_jobs:
            self.remove_task(self._of_jobs.pop(job.name))
        runs = self._tasks[self._all]
        outcome = f"failed: {failure}" if failure else "trained"
        say(self.console, f"[{runs.completed:.0f}/{runs.total:.0f}] {job.name} {outcome}")
