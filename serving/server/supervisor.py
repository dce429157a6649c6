"""Several worker processes on one port: started, watched, replaced and stopped together."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..config.settings import ServerSettings
from ..errors import StartError
from ..security.auth import QUOTA_FOLDER_VARIABLE
from ..telemetry.logs import log_target
from ..telemetry.metrics import WORKERS_VARIABLE
from ..telemetry.start import check_tracing, forget_worker, workers_folder
from .listeners import SHAREABLE, reserved_port
from .server import notify, stop_signal

_log = logging.getLogger(__name__)
_BACKOFF_SECONDS = (0.1, 30.0)
_SECONDS_TO_FORGIVE = 60.0
_SECONDS_BEYOND_GRACE = 5.0
_LOADING_SECONDS = 5.0
_POLLS_TO_AGREE = 4  # of the folder of models: a change counts at the second


async def supervise(settings: ServerSettings) -> None:
    """Serve from `settings.workers` processes until SIGTERM or SIGINT. Raises StartError if they cannot start."""
    if not SHAREABLE:
        raise StartError("several workers need Linux, which spreads connections over processes; use 1 here")
    check_tracing(settings)
    stop = stop_signal(signal.SIGTERM, signal.SIGINT)
    with (
        reserved_port(settings.host, settings.port) as port,
        workers_folder(settings) as metrics,
        TemporaryDirectory(prefix="bgan-quotas-") as quotas,
    ):
        os.environ[QUOTA_FOLDER_VARIABLE] = quotas  # for the workers, which share each token's quota
        pool = _Pool(settings.model_copy(update={"port": port}), metrics)
        try:
            await pool.start(stop)
            if not stop.is_set():
                _log.info("serving on %s:%d", settings.host, port)
                notify("READY=1")
                await pool.watch(stop)
                notify("STOPPING=1")
        finally:
            await pool.stop()
    _log.info("stopped")


class _Pool:
    """The workers, which report the same health: serving once every one is ready."""

    def __init__(self, settings: ServerSettings, metrics: Path | None) -> None:
        """`metrics`: the folder of the workers' metrics; None: there are none."""
        self._settings = settings
        self._metrics = metrics
        self._workers: list[_Worker] = []
        self._changed = asyncio.Condition()
        self._seconds_to_agree = _LOADING_SECONDS + _POLLS_TO_AGREE * settings.model_poll_seconds

    async def start(self, stop: asyncio.Event) -> None:
        """Start all workers; they listen at once and serve together. Raises StartError if one fails."""
        for number in range(self._settings.workers):
            self._workers.append(await self._start_worker(number))
        for worker in self._workers:
            worker.tell("listen")
        loading = asyncio.create_task(self._agree_at_start())
        either: list[asyncio.Task[Any]] = [loading, asyncio.create_task(stop.wait())]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        for task in either:
            task.cancel()
        if loading.done():
            loading.result()
            for worker in self._workers:
                worker.set_serving()

    async def _agree_at_start(self) -> None:
        await asyncio.gather(*[worker.loaded() for worker in self._workers])
        await self._agree(
            lambda: all(worker.models == self._workers[0].models for worker in self._workers),
            "the workers loaded different models; did the folder change just now? Start again",
        )

    async def watch(self, stop: asyncio.Event) -> None:
        """Replace workers that exit, until `stop`."""
        replacing = [asyncio.create_task(self._keep_alive(slot)) for slot in range(len(self._workers))]
        await stop.wait()
        for task in replacing:
            task.cancel()
        await asyncio.gather(*replacing, return_exceptions=True)

    async def stop(self) -> None:
        seconds = self._settings.lame_duck_seconds + self._settings.grace_seconds
        await asyncio.gather(*[worker.stop(seconds) for worker in self._workers])

    async def _keep_alive(self, slot: int) -> None:
        shortest, longest = _BACKOFF_SECONDS
        backoff = shortest
        while True:
            started = time.monotonic()
            code = await self._workers[slot].process.wait()
            forget_worker(self._metrics, self._workers[slot].process.pid)
            backoff = shortest if time.monotonic() - started > _SECONDS_TO_FORGIVE else min(2 * backoff, longest)
            _log.warning("worker %d ended with %d; another starts in %.1f s", slot, code, backoff)
            await asyncio.sleep(backoff)
            try:
                await self._replace(slot)
            except StartError as error:
                _log.error("worker %d cannot be replaced: %s", slot, error)

    async def _replace(self, slot: int) -> None:
        """A new worker listens once it has the others' models, so that calls get the same from all.

        All watch the same folder, so they soon agree, unless a model's file has since been corrupted.
        """
        worker = self._workers[slot] = await self._start_worker(slot)
        await worker.loaded()
        try:
            await self._agree(
                lambda: self._fits(worker),
                "it loads other models than the running ones; fix the files that cannot be served, "
                "or restart the server",
            )
        except StartError:
            await worker.stop(0)
            raise
        worker.set_serving()
        worker.tell("listen")
        _log.info("worker %d is replaced", slot)

    async def _start_worker(self, number: int) -> _Worker:
        variables = {} if self._metrics is None else {WORKERS_VARIABLE: str(self._metrics)}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # a folder named bgan here is not the package
            *("-m", "bgan.serving.server.worker", str(number), self._settings.model_dump_json()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log_target(),
            env={**os.environ, **variables},
        )
        return _Worker(process, self._changed)

    def _fits(self, worker: _Worker) -> bool:
        others = [other.models for other in self._workers if other.is_serving]
        return not others or worker.models in others

    async def _agree(self, condition: Callable[[], bool], otherwise: str) -> None:
        """Wait for a condition on the workers' models. Raises StartError with `otherwise` if it takes too long."""
        try:
            async with asyncio.timeout(self._seconds_to_agree), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError:
            raise StartError(otherwise) from None


class _Worker:
    """One process; its standard input takes commands, and its standard output answers."""

    def __init__(self, process: asyncio.subprocess.Process, changed: asyncio.Condition) -> None:
        """`changed` is notified when the process says something."""
        if process.stdin is None or process.stdout is None:
            raise ValueError("a worker needs pipes")
        self.models: list[str] = []
        """The models that it serves, as it said last."""
        self.process = process
        self._is_told = False
        self._commands = process.stdin
        self._changed = changed
        self._error: str | None = None
        self._listening = asyncio.create_task(self._listen(process.stdout))

    @property
    def is_serving(self) -> bool:
        """Whether it was told to serve and has not exited."""
        return self._is_told and self.process.returncode is None

    def tell(self, command: str) -> None:
        self._commands.write(f"{command}\n".encode())

    def set_serving(self) -> None:
        self.tell("set serving")
        self._is_told = True

    async def loaded(self) -> None:
        """Wait for the models. Raises StartError if they cannot be loaded."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.models or self._error is not None)
        if not self.models:
            raise StartError(self._error)

    async def _listen(self, answers: asyncio.StreamReader) -> None:
        while line := await answers.readline():
            answer = json.loads(line)
            await self._note(answer.get("models", self.models), answer.get("error"))
        await self._note(self.models, self._error or "a worker ended while it was starting; the log says more")

    async def _note(self, models: list[str], error: str | None) -> None:
        async with self._changed:
            self.models, self._error = models, error
            self._changed.notify_all()

    async def stop(self, grace_seconds: float) -> None:
        """Let it end its calls, and kill it if that takes longer."""
        self._commands.close()
        try:
            await asyncio.wait_for(self.process.wait(), grace_seconds + _SECONDS_BEYOND_GRACE)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
