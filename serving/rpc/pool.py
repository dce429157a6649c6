"""Threads that compute batches in small steps; callers have theirs in turn, however many batches each wants."""

import asyncio
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import Any, TypeVar

from ..telemetry.metrics import Metrics
from .turns import Turns, Who

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work that yields after each step and returns its result; a step is an inference of some milliseconds."""


def in_one_step(compute: Callable[..., T], *arguments: object) -> Steps[T]:
    """Work of a single step."""
    return compute(*arguments)
    yield  # makes it a generator


def timed(metrics: Metrics, model: str, steps: Steps[T]) -> Steps[T]:
    """The same work, whose seconds are counted as those of a batch of a model."""
    seconds = 0.0
    while True:
        started = time.perf_counter()
        try:
            next(steps)
        except StopIteration as end:
            metrics.computed(model, seconds + time.perf_counter() - started)
            result: T = end.value
            return result
        seconds += time.perf_counter() - started
        yield


class FairPool:
    """Computes for callers: one step of each in turn, and of each connection of one; on a connection in order.

    So beside one caller's hundred streams another's batch waits for one step of them at a time.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._free = threads
        self._lock = Lock()
        self._jobs: Turns[_Job] = Turns()

    def run(self, who: Who, steps: Steps[T]) -> asyncio.Future[T]:
        """Compute for a caller; cancelling the future ends it after its current step."""
        job = _Job(who, steps)
        with self._lock:
            self._jobs.put(who, job)
            is_free = self._free > 0
            self._free -= is_free
        if is_free:
            self._threads.submit(self._work)
        return asyncio.wrap_future(job.future)

    def shutdown(self) -> None:
        """End the threads after their current steps, without waiting for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _work(self) -> None:
        job: _Job | None = None
        while True:
            with self._lock:
                if job is not None:
                    self._jobs.put_first(job.who, job)
                if not self._jobs:
                    self._free += 1
                    return
                job = self._jobs.take()
            if not job.step():
                job = None


class _Job:
    def __init__(self, who: Who, steps: Steps[Any]) -> None:
        self.who = who
        self.future: Future[Any] = Future()
        self._steps = steps

    def step(self) -> bool:
        """Do one step, unless nobody wants the result; returns whether there are more."""
        if self.future.cancelled():
            self._steps.close()
            return False
        with suppress(InvalidStateError):  # cancelled at this moment
            try:
                next(self._steps)
                return True
            except StopIteration as end:
                self.future.set_result(end.value)
            except BaseException as error:
                self.future.set_exception(error)
        return False
