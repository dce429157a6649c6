"""The server's life: start, load and warm up, serve, and stop without losing an image."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from ..config.settings import SHIPPED, ServerSettings
from ..models.registry import Registry
from ..models.repository import Repository
from ..rpc.context import ServiceContext
from ..rpc.sampling import SamplingServicer
from ..security.tls import certificates_of
from ..security.watched_files import POLL_SECONDS
from ..telemetry.logs import writing_log
from ..telemetry.metrics import Metrics
from ..telemetry.start import start_metrics
from .connections import Connections
from .listeners import Health, Listeners, reserved_port

_AFTERMATH_SECONDS = 0.5
_CHECKS_FOR_STALLED_READERS = 4  # in the time after which they are ended
_log = logging.getLogger(__name__)


async def serve(settings: ServerSettings) -> None:
    """Serve from this process until SIGTERM or SIGINT. Raises StartError or ModelFileError if it cannot start."""
    stop = stop_signal(signal.SIGTERM, signal.SIGINT)
    with reserved_port(settings.host, settings.port) as port:
        async with Server(settings.model_copy(update={"port": port}), start_metrics(settings)) as server:
            listening_on = await server.listen()
            await server.load()
            await server.set_serving()
            _log.info("serving on %s:%d", settings.host, listening_on)
            notify("READY=1")
            following = asyncio.create_task(server.follow())
            await stop.wait()
            notify("STOPPING=1")
            following.cancel()
    _log.info("stopped")


def stop_signal(*numbers: signal.Signals) -> asyncio.Event:
    """An event that these signals set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    return stop


def notify(state: str) -> None:
    """Tell a service manager, such as systemd with Type=notify, the server's state (sd_notify(3)).

    It listens on the socket that NOTIFY_SOCKET names. A failure is only logged: for the manager the start
    fails then, callers are not affected.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket has no file
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(state.encode(), address)
    except OSError as error:
        _log.warning("the service manager cannot be told %s: %s", state, error)


class Server:
    """The gRPC server with its health, reflection and services; leaving its context stops it in order."""

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        """Make a server that does not listen yet. On Linux `reserved_port` must hold its port.

        Raises ServingError if the certificates, the tokens or the trace endpoint are invalid.
        """
        self._settings = settings
        self._context = ServiceContext.build(settings, metrics)
        self._certificates = certificates_of(settings)
        self._sampling = SamplingServicer(self._context)
        self._health = Health(self._context.models)
        self._listeners = Listeners(self._context, self._sampling, self._health)
        self._repository = Repository(
            settings.models,
            default_model=settings.default_model,
            versions=settings.model_versions,
            keep_seconds=settings.model_keep_seconds,
            max_bytes=settings.max_model_bytes,
        )
        # Models are loaded beside the calls, not in their way.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="models")

    async def __aenter__(self) -> Self:
        await self._health.tell()
        connections = Connections(self._settings, self._context.admission, self._settings.port)
        self._watching = asyncio.gather(self._end_stalled_readers(), self._follow_secrets(), connections.watch())
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stop()
        self._watching.cancel()
        self._loader.shutdown()
        self._context.close()

    async def listen(self) -> int:
        """Take calls; returns the port. Raises StartError if it is taken."""
        return await self._listeners.start(self._certificates)

    async def load(self) -> Registry:
        """Load, check and warm the models. Raises StartError if there is none to serve."""
        folder = self._settings.models
        _log.info("loading the models %s %s", "that come with bgan," if folder == SHIPPED else "in", folder)
        registry = await asyncio.get_running_loop().run_in_executor(self._loader, self._repository.load)
        await self._serve(registry)
        return registry

    async def follow(self, changed: Callable[[Registry], None] = lambda registry: None) -> None:
        """Follow the folder of models until cancelled; `changed` is called with the models after each change."""
        loop = asyncio.get_running_loop()
        while self._settings.model_poll_seconds:
            await asyncio.sleep(self._settings.model_poll_seconds)
            try:
                registry = await loop.run_in_executor(self._loader, self._repository.poll)
            except Exception:
                _log.exception("the folder of models cannot be followed; its models stay as they are")
                continue
            if registry is not None:
                await self._serve(registry)
                changed(registry)

    async def set_serving(self) -> None:
        """Say that calls will be answered."""
        self._health.is_serving = True
        await self._health.tell()
        self._context.metrics.ready(True)

    async def _serve(self, registry: Registry) -> None:
        self._sampling.serve(registry)
        await self._health.tell()

    async def _end_stalled_readers(self) -> None:
        while True:
            await asyncio.sleep(self._settings.stalled_write_seconds / _CHECKS_FOR_STALLED_READERS)
            self._context.admission.end_stalled()

    async def _follow_secrets(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._context.authenticator.poll()
                if self._certificates is not None:
                    await self._certificates.poll()
            except Exception:
                _log.exception("certificates and tokens cannot be followed; they stay as they are")

    async def _stop(self) -> None:
        """Turn unhealthy; after the lame-duck time take no more calls and give streams the grace period.

        After half of it they are cut.
        """
        admission, grace = self._context.admission, self._settings.grace_seconds
        await self._health.servicer.enter_graceful_shutdown()
        self._context.metrics.ready(False)
        if self._health.is_serving:
            await asyncio.sleep(self._settings.lame_duck_seconds)
        admission.close()
        cut = asyncio.get_running_loop().call_later(grace / 2, self._cut_streams)
        closing = asyncio.create_task(self._listeners.stop(grace))
        # Only streams and inferences are waited for: a health watch would stay open to the end.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(admission.idle.wait(), grace)
        cut.cancel()
        await asyncio.wait({closing}, timeout=_AFTERMATH_SECONDS)  # the last status may still be on its way
        await self._listeners.stop(0)
        await closing
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:  # handlers that were ended may still be at it when stop returns (grpc/grpc#37239)
            await asyncio.wait(others, timeout=_AFTERMATH_SECONDS)

    def _cut_streams(self) -> None:
        _log.info("ending the remaining streams at an image boundary")
        self._sampling.cut_streams()


def run(main: Coroutine[Any, Any, None], *, log_format: str, worker: int | None = None) -> None:
    """Run a server's main coroutine, with the log on stderr; `worker` tells processes apart where several log."""
    with writing_log(log_format, worker=worker):
        if sys.platform == "win32":
            asyncio.run(main)
        else:
            import uvloop  # a call costs less CPU time with it

            uvloop.run(main)
