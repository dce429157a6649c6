"""Several worker processes on one port: started, watched, replaced and stopped together."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..config.settings import ServerSettings
from ..config.shared_folder import shared_folder
from ..errors import ServerFaultError, StartError
from ..security.auth import QUOTA_FOLDER_VARIABLE
from ..telemetry.logs import log_target
from ..telemetry.metrics import WORKERS_VARIABLE
from ..telemetry.start import check_tracing, count_worker, forget_worker, workers_folder
from .ports import SHAREABLE, reserved_ports
from .server import followed, log_addresses, notify, seconds_to_stop
from .stop import Stop
from .worker import BEAT_SECONDS, LISTEN, SET_SERVING

_log = logging.getLogger(__name__)
_BACKOFF_SECONDS = (0.1, 30.0)
_SECONDS_TO_FORGIVE = 60.0
_SECONDS_BEYOND_GRACE = 0.7
_SECONDS_FOR_WORKERS = 0.6  # beyond grace; then they are killed
_SECONDS_TO_DIE = 0.05
_BEATS_TO_START = 60  # before the first one, which takes the imports
_BEATS_TO_MISS = 5
_BEATS_TO_DOUBT = 2  # then it counts no more, until it answers again
_LOADING_SECONDS = 5.0
_POLLS_TO_AGREE = 4  # of the folder of models: a change counts at the second


async def supervise(settings: ServerSettings) -> None:
    """Serve from `settings.workers` processes until a signal, as `serve`. Raises StartError if they cannot."""
    if not SHAREABLE:
        raise StartError("several workers need Linux, which spreads connections over processes; use 1 here")
    check_tracing(settings)
    seconds = seconds_to_stop(settings) + _SECONDS_BEYOND_GRACE
    with (
        Stop(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, seconds=seconds) as stop,
        reserved_ports(settings) as held,
        workers_folder(settings) as metrics,
        _quotas_folder(settings) as quotas,
    ):
        follower, local = followed(held)
        pool = _Pool(local, metrics, quotas)
        try:
            if follower is None or await _ends_before(stop, follower.start()):
                await pool.start(stop)
            if not stop.is_set():
                log_addresses(held)
                notify("READY=1")
                await pool.watch(stop)
                notify("STOPPING=1")
        finally:
            stop.begin()
            await pool.stop()
    _log.info("stopped")


async def _ends_before(stop: Stop, work: Coroutine[Any, Any, None]) -> bool:
    """Whether work ends before the process is to stop, or else is cancelled. Raises what it raises."""
    task = asyncio.create_task(work)
    either: list[asyncio.Task[Any]] = [task, asyncio.create_task(stop.wait())]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    has_ended = task.done()
    for each in either:
        each.cancel()
    if has_ended:
        task.result()
    return has_ended


@contextmanager
def _quotas_folder(settings: ServerSettings) -> Iterator[Path | None]:
    """Where the workers share each token's quota; None where there are no tokens. Raises StartError."""
    if settings.tokens is None:
        yield None
        return
    with shared_folder("bgan-quotas-", "the tokens", is_small=True) as folder:
        yield folder


class _Pool:
    """The workers, which report the same health: serving once every one is ready."""

    def __init__(self, settings: ServerSettings, metrics: Path | None, quotas: Path | None) -> None:
        """`metrics`, `quotas`: the folders of what the workers count; None: they do not."""
        self._settings = settings
        self._metrics = metrics
        folders = {WORKERS_VARIABLE: metrics, QUOTA_FOLDER_VARIABLE: quotas}
        self._variables = {name: str(folder) for name, folder in folders.items() if folder is not None}
        self._workers: list[_Worker] = []
        self._changed = asyncio.Condition()
        self._seconds_to_agree = _LOADING_SECONDS + _POLLS_TO_AGREE * settings.model_poll_seconds

    async def start(self, stop: Stop) -> None:
        """Start all workers; they listen at once and serve together. Raises StartError if one fails."""
        for number in range(self._settings.workers):
            self._workers.append(await self._start_worker(number))
        for worker in self._workers:
            worker.tell(LISTEN)
        if await _ends_before(stop, self._agree_at_start()):
            for worker in self._workers:
                worker.set_serving()

    async def _agree_at_start(self) -> None:
        await asyncio.gather(*[worker.loaded() for worker in self._workers])
        await self._agree(
            lambda: all(worker.models == self._workers[0].models for worker in self._workers),
            "the workers loaded different models; did the folder change just now? Start again",
        )

    async def watch(self, stop: Stop) -> None:
        """Replace workers that exit or fall silent, until `stop`."""
        replacing = [asyncio.create_task(self._keep_alive(slot)) for slot in range(len(self._workers))]
        stopping = asyncio.create_task(stop.wait())
        ended, _ = await asyncio.wait([stopping, *replacing], return_when=asyncio.FIRST_COMPLETED)
        for task in replacing:
            task.cancel()
        await asyncio.wait(replacing)
        if stopping not in ended:
            raise ServerFaultError(f"workers are no longer replaced ({ended.pop().exception()!r})")

    async def stop(self) -> None:
        seconds = seconds_to_stop(self._settings) + _SECONDS_FOR_WORKERS
        await asyncio.gather(*[worker.stop(seconds) for worker in self._workers])

    async def _keep_alive(self, slot: int) -> None:
        shortest, longest = _BACKOFF_SECONDS
        backoff = shortest
        while True:
            started = time.monotonic()
            end = await self._workers[slot].wait()
            forget_worker(self._metrics, self._workers[slot].process.pid)
            backoff = shortest if time.monotonic() - started > _SECONDS_TO_FORGIVE else min(2 * backoff, longest)
            _log.warning("worker %d %s; another starts in %.1f s", slot, end, backoff)
            await asyncio.sleep(backoff)
            try:
                await self._replace(slot)
            except (StartError, OSError) as error:  # the system may lack files or memory for a moment
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
        worker.tell(LISTEN)
        _log.info("worker %d is replaced", slot)

    async def _start_worker(self, number: int) -> _Worker:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a folder named bgan here is not the package
                *("-m", "bgan.serving.server.worker", str(number), self._settings.as_argument()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log_target(),
                env={**os.environ, **self._variables},
            )
        except OSError as error:
            raise StartError(f"a worker cannot be started ({error.strerror}); try again later") from error
        return _Worker(process, self._changed, self._metrics)

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
    """One process; its standard input takes commands, and its standard output reports, at least once a beat."""

    def __init__(
        self, process: asyncio.subprocess.Process, changed: asyncio.Condition, metrics: Path | None
    ) -> None:
        """`changed` is notified when the process reports something new; `metrics`: the folder of its metrics."""
        if process.stdin is None or process.stdout is None:
            raise ValueError("a worker needs pipes")
        self.models = ""
        """What stands for the models that it serves, as it reported last; empty: they are not loaded."""
        self.process = process
        self._is_told = False
        self._is_silent = False
        self._metrics = metrics
        self._commands = process.stdin
        self._changed = changed
        self._error = ""
        self._silence = ""
        self._listening = asyncio.create_task(self._listen(process.stdout))

    @property
    def is_serving(self) -> bool:
        """Whether it was told to serve, answers and has not exited."""
        return self._is_told and not self._is_silent and self.process.returncode is None

    def tell(self, command: bytes) -> None:
        self._commands.write(command)

    def set_serving(self) -> None:
        self.tell(SET_SERVING)
        self._is_told = True

    async def loaded(self) -> None:
        """Wait for the models. Raises StartError if they cannot be loaded."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.models or self._error)
        if not self.models:
            raise StartError(self._error)

    async def wait(self) -> str:
        """Wait for the end of the process, or for its silence, which is its end; says which."""
        code = await self.process.wait()
        await self._listening
        return self._silence or f"ended with {code}"

    async def _listen(self, reports: asyncio.StreamReader) -> None:
        """Take reports until they end. Without them the process is of no use, however it lives on."""
        try:
            await self._take(reports)
        except Exception as error:
            self._silence = f"could not be understood ({error!r}) and was ended"
        finally:
            self._kill()
            await self._note(self.models, self._error or "a worker ended while it was starting; the log says more")

    async def _take(self, reports: asyncio.StreamReader) -> None:
        missed, bearable = 0, _BEATS_TO_START
        # Turns are counted, not time: the supervisor itself may have stood still.
        while missed < bearable:
            try:
                async with asyncio.timeout(BEAT_SECONDS):  # wait_for of Python 3.11 may lose a cancellation
                    line = await reports.readline()
            except TimeoutError:
                missed += 1
                self._set_silent(bearable == _BEATS_TO_MISS and missed >= _BEATS_TO_DOUBT)
                continue
            if not line:
                return
            missed, bearable = 0, _BEATS_TO_MISS
            self._set_silent(False)
            report = json.loads(line)
            await self._note(report["models"], report["error"])
        self._silence = f"did not answer for {bearable * BEAT_SECONDS:.0f} s and was ended"

    def _set_silent(self, is_silent: bool) -> None:
        if is_silent != self._is_silent:
            self._is_silent = is_silent
            count_worker(self._metrics, self.process.pid, is_counted=not is_silent)

    async def _note(self, models: str, error: str) -> None:
        if (models, error) != (self.models, self._error):
            async with self._changed:
                self.models, self._error = models, error
                self._changed.notify_all()

    async def stop(self, seconds: float) -> None:
        """Let it end its calls, and kill it if that takes longer."""
        self._commands.close()
        waiting = asyncio.create_task(self.process.wait())
        await asyncio.wait({waiting}, timeout=seconds)
        self._kill()
        await asyncio.wait({waiting}, timeout=_SECONDS_TO_DIE)

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
