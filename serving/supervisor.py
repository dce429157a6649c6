"""Several worker processes on one port: started, watched, replaced and stopped together."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from typing import Any

from .config import ServerSettings
from .errors import StartError
from .port import SHAREABLE, reserved_port
from .server import stop_signal

_log = logging.getLogger(__name__)
_BACKOFF_SECONDS = (0.1, 30.0)
_SECONDS_TO_FORGIVE = 60.0
_SECONDS_BEYOND_GRACE = 5.0


async def supervise(settings: ServerSettings) -> None:
    """Serve from `settings.workers` processes until SIGTERM or SIGINT. Raises StartError if they cannot start."""
    if not SHAREABLE:
        raise StartError("workers needs a system that spreads connections over processes: Linux; use 1 here")
    stop = stop_signal(signal.SIGTERM, signal.SIGINT)
    with reserved_port(settings.host, settings.port) as port:
        pool = _Pool(settings.model_copy(update={"port": port}))
        try:
            await pool.start(stop)
            if not stop.is_set():
                _log.info("serving on %s:%d", settings.host, port)
                await pool.watch(stop)
        finally:
            await pool.stop()
    _log.info("stopped")


class _Pool:
    """The workers, and the one health state that all of them report: healthy once every one is ready."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._workers: list[_Worker] = []
        self._revisions: object = None

    async def start(self, stop: asyncio.Event) -> None:
        """Start all workers; they listen at once and turn healthy together. Raises StartError if one fails."""
        for number in range(self._settings.workers):
            self._workers.append(await _Worker.start(self._settings, number))
        for worker in self._workers:
            worker.tell("listen")
        loaded = asyncio.gather(*[worker.loaded() for worker in self._workers])
        stopping = asyncio.create_task(stop.wait())
        either: set[asyncio.Future[Any]] = {loaded, stopping}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not loaded.done():
            loaded.cancel()
            return
        revisions = loaded.result()
        if any(other != revisions[0] for other in revisions):
            raise StartError("the workers loaded different models; did the folder change just now? Start again")
        self._revisions = revisions[0]
        for worker in self._workers:
            worker.tell("turn healthy")

    async def watch(self, stop: asyncio.Event) -> None:
        """Replace workers that end, until `stop`."""
        replacing = [asyncio.create_task(self._keep_alive(place)) for place in range(len(self._workers))]
        await stop.wait()
        for task in replacing:
            task.cancel()
        await asyncio.gather(*replacing, return_exceptions=True)

    async def stop(self) -> None:
        """End all workers in order, and those that do not end by force."""
        await asyncio.gather(*[worker.stop(self._settings.grace_seconds) for worker in self._workers])

    async def _keep_alive(self, place: int) -> None:
        shortest, longest = _BACKOFF_SECONDS
        backoff = shortest
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            code = await self._workers[place].ended()
            backoff = shortest if loop.time() - started > _SECONDS_TO_FORGIVE else min(2 * backoff, longest)
            _log.warning("worker %d ended with %d; another starts in %.1f s", place, code, backoff)
            await asyncio.sleep(backoff)
            try:
                await self._replace(place)
            except StartError as error:
                _log.error("worker %d cannot be replaced: %s", place, error)

    async def _replace(self, place: int) -> None:
        """A new worker listens only when its models are loaded: calls that meet it are answered at once."""
        worker = self._workers[place] = await _Worker.start(self._settings, place)
        if await worker.loaded() != self._revisions:
            await worker.stop(0)
            raise StartError("it loads other models than the running ones; restart the server to serve those")
        worker.tell("turn healthy")
        worker.tell("listen")
        _log.info("worker %d is replaced", place)


class _Worker:
    """One process, told what to do on its standard input; it says on its standard output what it has done."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, settings: ServerSettings, number: int) -> _Worker:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # a folder named bgan here is not the package
            *("-m", "bgan.serving.worker", str(number), settings.model_dump_json()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return cls(process)

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())

    async def loaded(self) -> Any:
        """Wait for the models; returns their revisions by name. Raises StartError if they cannot be loaded."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        answer = json.loads(line or '{"error": "a worker ended while it was starting; the log says more"}')
        if "error" in answer:
            raise StartError(answer["error"])
        return answer["revisions"]

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
