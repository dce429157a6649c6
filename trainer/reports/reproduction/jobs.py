"""Trainings as processes of their own, a few at a time."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ...common.console import say
from ...common.errors import Interrupted
from ...common.signals import StopSignals
from ...config.command import train_options
from ...config.training import TrainingConfig

_POLL_SECONDS = 0.2
_PLAIN_INTERVAL_SECONDS = 30.0
_NO_OPTIONS = ("data_digest", "image_options")
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
        names = [field.name for field in dataclasses.fields(self.config)]
        settings = {name: getattr(self.config, name) for name in names if name not in _NO_OPTIONS}
        settings |= self.config.data.options.changed()
        return ["train", "--name", self.name, "--runs-dir", str(self.folder.parent), *train_options(settings)]

    def progress(self) -> tuple[int, int] | None:
        """Iterations (done, in all) by the last line of its log."""
        try:
            found = _STEP.findall(self.log.read_text())
        except OSError:
            return None
        return (int(found[-1][0]), int(found[-1][1])) if found else None

    def last_words(self) -> str:
        """The last line of its log: why it failed."""
        lines = [line for line in self.log.read_text().splitlines() if line.strip()]
        return lines[-1].removeprefix("bgan: ") if lines else "it said nothing"


class JobRunner:
    """Runs jobs, at most `jobs` at a time, and shows how they go."""

    def __init__(self, jobs: int, console: Console) -> None:
        self._slots = jobs
        self._console = console
        self._running: dict[subprocess.Popen[bytes], Job] = {}
        self._failed: dict[str, str] = {}

    def run(self, jobs: list[Job]) -> dict[str, str]:
        """Run all jobs; the result is why each that failed did, by name.

        Raises Interrupted after a signal, when every process has saved its run.
        """
        waiting = deque(jobs)
        with StopSignals() as signals, _Display(len(jobs), self._console) as display:
            while waiting or self._running:
                while waiting and len(self._running) < self._slots:
                    self._start(waiting.popleft())
                time.sleep(_POLL_SECONDS)
                if signals.received is not None:
                    self._stop(signals.received)
                for process in [process for process in self._running if process.poll() is not None]:
                    self._finish(process, display)
                display.update(list(self._running.values()))
        return self._failed

    def _start(self, job: Job) -> None:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        threads = max(1, (os.cpu_count() or 1) // self._slots)
        with job.log.open("wb") as log:
            process = subprocess.Popen(
                # -P: a folder named bgan where the command is run is not the package
                [sys.executable, "-P", "-c", _COMMAND, *job.command()],
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "NO_COLOR": "1"},
                start_new_session=True,  # a Ctrl-C reaches this process alone, which passes it on once
            )
        self._running[process] = job

    def _finish(self, process: subprocess.Popen[bytes], display: _Display) -> None:
        job = self._running.pop(process)
        if process.returncode:
            self._failed[job.name] = job.last_words()
        display.finished(job, self._failed.get(job.name))

    def _stop(self, received: signal.Signals) -> None:
        for process in self._running:
            process.send_signal(signal.SIGTERM)
        for process in self._running:
            process.wait()
        raise Interrupted(
            f"{received.name}: stopped, and the trainings under way were saved; the same command goes on",
            exit_code=128 + received,
        )


class _Display:
    """A bar for each running job and one for all, or a line now and then where there is no terminal."""

    def __init__(self, total: int, console: Console) -> None:
        self._console = console
        self._total = total
        self._done = 0
        self._last_line = time.monotonic()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._all = self._bars.add_task("runs", total=total)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Display:
        self._bars.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._bars.stop()

    def update(self, running: list[Job]) -> None:
        """Show where the running jobs are."""
        plain = not self._console.is_terminal
        if plain and time.monotonic() - self._last_line < _PLAIN_INTERVAL_SECONDS:
            return
        self._last_line = time.monotonic()
        for job in running:
            done, total = job.progress() or (0, 0)
            if plain:
                say(self._console, f"{job.name}: step {done}/{total or '?'}")
                continue
            if job.name not in self._tasks:
                self._tasks[job.name] = self._bars.add_task(job.name)
            self._bars.update(self._tasks[job.name], completed=done, total=total or None)

    def finished(self, job: Job, failure: str | None) -> None:
        """Show that a job ended."""
        self._done += 1
        self._bars.update(self._all, completed=self._done)
        if job.name in self._tasks:
            self._bars.remove_task(self._tasks.pop(job.name))
        outcome = f"failed: {failure}" if failure else "trained"
        say(self._console, f"[{self._done}/{self._total}] {job.name} {outcome}")
