"""Shards by processes of this machine, each of which takes one after the other and outlives no command."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

from ..errors import GenerationError
from .shards import ShardJob, make_shard

TICK_SECONDS = 0.2
_TRIES = 3
_COMMAND = "from bgan.serving.generate.processes import work; work()"
Made = Iterator[dict[str, Any] | None]
"""The records of shards as they become whole, in any order, and None now and then."""


@contextmanager
def local_processes(job: ShardJob, count: int) -> Iterator[Callable[[Iterable[int]], Made]]:
    """A function that has shards made by so many processes, until left. It raises what `make_shard` raises."""
    workers = _Workers(job)
    with ThreadPoolExecutor(count, thread_name_prefix="shards") as pool:

        def make(shards: Iterable[int]) -> Made:
            waiting, running = iter(shards), set[Future[dict[str, Any]]]()
            while True:
                running |= {pool.submit(workers.make, shard) for shard in islice(waiting, count - len(running))}
                if not running:
                    return
                done, running = wait(running, TICK_SECONDS, FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                yield None

        try:
            yield make
        finally:
            workers.stop()


class _Workers:
    """The processes, one for each thread that asks for shards."""

    def __init__(self, job: ShardJob) -> None:
        self._job = pickle.dumps(job)
        self._own = threading.local()
        self._all: deque[subprocess.Popen[bytes]] = deque()
        self._lock = threading.Lock()
        self._is_stopped = False

    def make(self, shard: int) -> dict[str, Any]:
        """The record of a shard, which another process makes if the first is killed."""
        for _ in range(_TRIES):
            process, greeting = self._process()
            try:
                found: dict[str, Any] | Exception = _ask(process, greeting, shard)
            except (EOFError, OSError, pickle.UnpicklingError):
                process.kill()
                code = process.wait()
                continue
            if isinstance(found, Exception):
                raise found
            return found
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise GenerationError(
            f"the processes that made shard {shard} ended with {how}, {_TRIES} in a row; is there enough memory?"
        )

    def stop(self) -> None:
        """End all processes, whatever they are at."""
        with self._lock:
            self._is_stopped = True
        for process in self._all:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):  # what was not sent yet
                    pipe.close()  # type: ignore[union-attr]

    def _process(self) -> tuple[subprocess.Popen[bytes], bytes]:
        """The process of this thread, or another one where that has ended; and what it must be told first."""
        process: subprocess.Popen[bytes] | None = getattr(self._own, "process", None)
        if process is not None and process.poll() is None:
            return process, b""
        with self._lock:
            if self._is_stopped:
                raise GenerationError("stopped")
            # -P: a folder named bgan where the command is run is not the package
            command = [sys.executable, "-P", "-c", _COMMAND]
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True)
            self._all.append(process)
        self._own.process = process
        return process, self._job


def _ask(process: subprocess.Popen[bytes], greeting: bytes, shard: int) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(greeting + pickle.dumps(shard))
    process.stdin.flush()
    return pickle.load(process.stdout)


def work() -> None:
    """Make the shards that standard input names, until it ends: with the command, however that ends."""
    tasks, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    with suppress(EOFError, BrokenPipeError):
        job: ShardJob = pickle.load(tasks)
        while True:
            shard: int = pickle.load(tasks)
            answer: dict[str, Any] | Exception
            try:
                answer = make_shard(job, shard)
            except Exception as error:
                answer = error
            pickle.dump(answer, answers)
            answers.flush()
