"""Several worker processes on one port: started, watched, replaced and stopped together."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..config.settings import ServerSettings
from ..errors import StartError
from ..security.quota import FOLDER_VARIABLE
from ..telemetry.metrics import WORKERS_VARIABLE
from ..telemetry.start import check_tracing, forget_worker, workers_folder
from .port import SHAREABLE, reserved_port
from .server import stop_signal
from .systemd import READY, STOPPING, notify

_log = logging.getLogger(__name__)
_BACKOFF_SECONDS = (0.1, 30.0)
_SECONDS_TO_FORGIVE = 60.0
_SECONDS_BEYOND_GRACE = 5.0
_LOADING_SECONDS = 5.0
_LOOKS_TO_AGREE = 4  # at the folder of models: a change counts at the second


async def supervise(settings: ServerSettings) -> None:
    """Serve from `settings.workers` processes until SIGTERM or SIGINT. Raises StartError if they cannot start."""
    if not SHAREABLE:
        raise StartError("workers needs a system that spreads connections over processes: Linux; use 1 here")
    check_tracing(settings)
    stop = stop_signal(signal.SIGTERM, signal.SIGINT)
    with (
        reserved_port(settings.host, settings.port) as port,
        workers_folder(settings) as metrics,
        TemporaryDirectory(prefix="bgan-quotas-") as quotas,
    ):
        os.environ[FOLDER_VARIABLE] = quotas  # for the workers: what a token is good for it is so for all together
        pool = _Pool(settings.model_copy(update={"port": port}), metrics)
        try:
            await pool.start(stop)
            if not stop.is_set():
                _log.info("serving on %s:%d", settings.host, port)
                notify(READY)
                await pool.watch(stop)
                notify(STOPPING)
        finally:
            await pool.stop()
    _log.info("stopped")


class _Pool:
    """The workers, and the one health state that all of them report: healthy once every one is ready."""

    def __init__(self, settings: ServerSettings, metrics: Path | None) -> None:
        """metrics: the folder of the workers' metrics; None: there are none."""
        self._settings = settings
        self._metrics = metrics
        self._workers: list[_Worker] = []
        self._changed = asyncio.Condition()
        self._seconds_to_agree = _LOADING_SECONDS + _LOOKS_TO_AGREE * settings.model_poll_seconds

    async def start(self, stop: asyncio.Event) -> None:
        """Start all workers; they listen at once and start serving together. Raises StartError if one fails."""
        for number in range(self._settings.workers):
            self._workers.append(await self._start_worker(number))
        for worker in self._workers:
            worker.tell("listen")
        loading = asyncio.create_task(self._agree_at_start())
        stopping = asyncio.create_task(stop.wait())
        either: set[asyncio.Future[Any]] = {loading, stopping}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not loading.done():
            loading.cancel()
            return
        loading.result()
        for worker in self._workers:
            worker.set_serving()

    async def _agree_at_start(self) -> None:
        await asyncio.gather(*[worker.loaded() for worker in self._workers])
        first, *others = self._workers
        try:
            async with asyncio.timeout(self._seconds_to_agree):
                await self._until(lambda: all(worker.models == first.models for worker in others))
        except TimeoutError:
            raise StartError(
                "the workers loaded different models; did the folder change just now? Start again"
            ) from None

    async def watch(self, stop: asyncio.Event) -> None:
        """Replace workers that end, until `stop`."""
        replacing = [asyncio.create_task(self._keep_alive(place)) for place in range(len(self._workers))]
        await stop.wait()
        for task in replacing:
            task.cancel()
        await asyncio.gather(*replacing, return_exceptions=True)

    async def stop(self) -> None:
        """End all workers in order, and those that do not end by force."""
        seconds = self._settings.lame_duck_seconds + self._settings.grace_seconds
        await asyncio.gather(*[worker.stop(seconds) for worker in self._workers])

    async def _keep_alive(self, place: int) -> None:
        shortest, longest = _BACKOFF_SECONDS
        backoff = shortest
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            code = await self._workers[place].ended()
            forget_worker(self._metrics, self._workers[place].pid)
            backoff = shortest if loop.time() - started > _SECONDS_TO_FORGIVE else min(2 * backoff, longest)
            _log.warning("worker %d ended with %d; another starts in %.1f s", place, code, backoff)
            await asyncio.sleep(backoff)
            try:
                await self._replace(place)
            except StartError as error:
                _log.error("worker %d cannot be replaced: %s", place, error)

    async def _replace(self, place: int) -> None:
        """A new worker listens only when its models are those of the others: calls get the same from all.

        All follow the same folder, so they agree in a while, unless the others hold what is no more to be had.
        """
        worker = self._workers[place] = await self._start_worker(place)
        await worker.loaded()
        try:
            async with asyncio.timeout(self._seconds_to_agree):
                await self._until(lambda: self._fits(worker))
        except TimeoutError:
            await worker.stop(0)
            raise StartError(
                "it loads other models than the running ones; mend the files that cannot be served, "
                "or restart the server"
            ) from None
        worker.set_serving()
        worker.tell("listen")
        _log.info("worker %d is replaced", place)

    async def _start_worker(self, number: int) -> _Worker:
        return await _Worker.start(self._settings, number, self._changed, self._metrics)

    def _fits(self, worker: _Worker) -> bool:
        others = [other.models for other in self._workers if other.is_healthy]
        return not others or worker.models in others

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for what the workers' models decide."""
        async with self._changed:
            await self._changed.wait_for(condition)


class _Worker:
    """One process, told what to do on its standard input; it says on its standard output what it has done."""

    def __init__(self, process: asyncio.subprocess.Process, changed: asyncio.Condition) -> None:
        self.models: list[str] = []
        """The models that it serves, as it said last."""
        self._told_healthy = False
        self._process = process
        self._changed = changed
        self._error: str | None = None
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(
        cls, settings: ServerSettings, number: int, changed: asyncio.Condition, metrics: Path | None
    ) -> _Worker:
        """Start a process; `changed` is notified when it says something, `metrics` is where it counts."""
        variables = {} if metrics is None else {WORKERS_VARIABLE: str(metrics)}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # a folder named bgan here is not the package
            *("-m", "bgan.serving.server.worker", str(number), settings.model_dump_json()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **variables},
        )
        return cls(process, changed)

    @property
    def pid(self) -> int:
        """Its number in the system."""
        return self._process.pid

    @property
    def is_healthy(self) -> bool:
        """Whether it serves."""
        return self._told_healthy and self._process.returncode is None

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())

    def set_serving(self) -> None:
        self.tell("set serving")
        self._told_healthy = True

    async def loaded(self) -> None:
        """Wait for the models. Raises StartError if they cannot be loaded."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.models or self._error is not None)
        if not self.models:
            raise StartError(self._error)

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            await self._note(answer.get("models", self.models), answer.get("error"))
        await self._note(self.models, self._error or "a worker ended while it was starting; the log says more")

    async def _note(self, models: list[str], error: str | None) -> None:
        async with self._changed:
            self.models, self._error = models, error
            self._changed.notify_all()

    async def ended(self) -> int:
        return await self._process.wait()

    async def stop(self, grace_seconds: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self.ended(), grace_seconds + _SECONDS_BEYOND_GRACE)
        except TimeoutError:
            self._process.kill()
            await self.ended()
