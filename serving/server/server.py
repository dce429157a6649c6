"""The server's life: start, load and warm up, serve, and stop without losing an image."""

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..config.addresses import in_brackets
from ..config.settings import SHIPPED, ServerSettings
from ..errors import ServerFaultError, ServingError
from ..models.providers import start_provider
from ..models.registry import Registry
from ..models.repository import Repository
from ..rpc.context import ServiceContext
from ..rpc.guard import CallGuard
from ..rpc.open_inference import OpenInferenceServicer
from ..rpc.sampling import SamplingServicer
from ..security.tls import certificates_of
from ..security.watched_files import POLL_SECONDS
from ..telemetry.logs import writing_log
from ..telemetry.metrics import Metrics
from ..telemetry.start import start_metrics
from .connections import SLACK, Connections, connection_bound
from .health import Health
from .listeners import Listeners
from .ports import bound_socket, reserved_ports
from .stop import Stop
from .store_follower import StoreFollower

if TYPE_CHECKING:
    from ..web.listener import WebListener

_SECONDS_BEYOND_GRACE = 0.7  # for all that follows; then the process ends by force
_SECONDS_FOR_LAST_STATUS = 0.3
_SECONDS_TO_CLOSE = 0.15
_CHECKS_FOR_STALLED_READERS = 4  # in the time after which they are ended
_log = logging.getLogger(__name__)


async def serve(settings: ServerSettings) -> None:
    """Serve from this process until SIGTERM, SIGINT or SIGHUP.

    Raises StartError or ModelFileError if it cannot start, and ServerFaultError if a part of it fails later.
    """
    seconds = seconds_to_stop(settings) + _SECONDS_BEYOND_GRACE
    with (
        Stop(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, seconds=seconds) as stop,
        reserved_ports(settings) as held,
    ):
        follower, local = followed(held)
        async with Server(local, start_metrics(settings), stop) as server:
            server.watch(_live(server, follower))
            await server.wait()
            notify("STOPPING=1")
    _log.info("stopped")


def followed(settings: ServerSettings) -> tuple[StoreFollower | None, ServerSettings]:
    """What follows the URL of the models, None for a folder, and the settings with a folder. Raises StoreError."""
    if isinstance(settings.models, Path):
        return None, settings
    follower = StoreFollower(settings)
    return follower, settings.model_copy(update={"models": follower.folder})


async def _live(server: "Server", follower: StoreFollower | None) -> None:
    settings = await server.listen()
    if follower is not None:
        await follower.start()
    await server.load()
    server.set_serving()
    log_addresses(settings)
    notify("READY=1")
    await server.follow()


def log_addresses(settings: ServerSettings) -> None:
    """Say where calls are answered."""
    host = in_brackets(settings.host)
    if settings.http_port is not None:
        scheme = "http" if settings.tls_certificate is None else "https"
        _log.info("HTTP on %s://%s:%d", scheme, host, settings.http_port)
    _log.info("serving on %s:%d", host, settings.port)


def seconds_to_stop(settings: ServerSettings) -> float:
    """How long a process may take to end its calls."""
    return settings.lame_duck_seconds + settings.grace_seconds


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

    def __init__(self, settings: ServerSettings, metrics: Metrics, stop: Stop) -> None:
        """Make a server that does not listen yet. On Linux `reserved_port` must hold its port.

        It begins `stop` if one of its parts ends. Raises ServingError if the certificates, the tokens or the trace
        endpoint are invalid.
        """
        self._settings = settings
        self._stop_of_process = stop
        self._parts: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Task[None] | None = None  # the first part that ended by itself
        self._certificates = certificates_of(settings)
        self._context = ServiceContext.build(settings, metrics, self._certificates)
        self._sampling = SamplingServicer(self._context)
        self._health = Health(self._context)
        services = CallGuard(self._context), self._sampling, OpenInferenceServicer(self._context), self._health
        self._listeners = Listeners(self._context, *services, self._certificates)
        self._web = None if settings.http_port is None else self._make_web(*services)
        self._repository = Repository(
            Path(settings.models),
            default_model=settings.default_model,
            versions=settings.model_versions,
            keep_seconds=settings.model_keep_seconds,
            max_bytes=settings.max_model_bytes,
            is_followed=settings.model_poll_seconds > 0,
            provider=start_provider(settings.provider),
        )
        # Models are loaded beside the calls, not in their way.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="models")

    def _make_web(self, *services: Any) -> "WebListener":
        from ..web.app import make_app  # their libraries are loaded for an HTTP port alone
        from ..web.listener import WebListener

        most = math.ceil(SLACK * connection_bound(self._settings))
        app = make_app(self._context, *services)
        return WebListener(app, self._settings, self._certificates, max_connections=most)

    async def __aenter__(self) -> Self:
        self.watch(self._end_stalled_readers())
        self.watch(self._follow_secrets())
        ports = (self._settings.port, self._settings.http_port)
        self.watch(Connections(self._settings, self._context.admission, ports).watch())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._stop_of_process.begin()
        await self._stop()
        self._repository.close()
        self._loader.shutdown(wait=False, cancel_futures=True)
        self._context.close()

    def watch(self, part: Coroutine[Any, Any, None]) -> None:
        """Run a part of the server beside the others; its end is the server's."""
        task = asyncio.create_task(part)
        self._parts.add(task)
        task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not self._stop_of_process.is_set() and self._ended is None:
            self._ended = task
            self._stop_of_process.begin()

    async def wait(self) -> None:
        """Return once the process is to stop. Raises the ServingError that ended a part, or ServerFaultError."""
        await self._stop_of_process.wait()
        if self._ended is None:
            return
        error = None if self._ended.cancelled() else self._ended.exception()
        if isinstance(error, ServingError):
            raise error
        _log.error("a part of the server ended: %s", self._ended, exc_info=error)
        raise ServerFaultError(f"a part of the server ended ({type(error).__name__}: {error}); the log says more")

    async def listen(self) -> ServerSettings:
        """Take calls; returns the settings with the ports as they are. Raises StartError if one is taken."""
        settings, ports = self._settings, {"port": await self._listeners.start()}
        if self._web is not None and settings.http_port is not None:
            bound = bound_socket(settings.host, settings.http_port, use="HTTP")
            ports["http_port"] = await self._web.start(bound)
        self.watch(self._listeners.watch())
        return settings.model_copy(update=ports)

    async def load(self) -> Registry:
        """Load, check and warm the models. Raises StartError if there is none to serve."""
        folder = self._settings.models
        _log.info("loading the models %s %s", "that come with bgan," if folder == SHIPPED else "in", folder)
        if not self._repository.provider.is_cpu:
            _log.info("images are computed by %s", self._repository.provider)
        registry = await asyncio.get_running_loop().run_in_executor(self._loader, self._repository.load)
        self._serve(registry)
        return registry

    async def follow(self, changed: Callable[[Registry], None] = lambda registry: None) -> None:
        """Follow the folder of models until cancelled; `changed` is called with the models after each change."""
        loop = asyncio.get_running_loop()
        if not self._settings.model_poll_seconds:
            await asyncio.Event().wait()
        while True:
            await asyncio.sleep(self._settings.model_poll_seconds)
            try:
                registry = await loop.run_in_executor(self._loader, self._repository.poll)
            except Exception:
                _log.exception("the folder of models cannot be followed; its models stay as they are")
                continue
            if registry is not None:
                self._serve(registry)
                changed(registry)

    def set_serving(self) -> None:
        """Say that calls will be answered."""
        self._health.is_serving = True
        self._health.tell()
        self._context.metrics.ready(True)

    def _serve(self, registry: Registry) -> None:
        self._sampling.serve(registry)
        self._health.tell()

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

        After half of it they are cut. Nothing is waited for without a bound.
        """
        admission, grace = self._context.admission, self._settings.grace_seconds
        self._health.end()
        self._context.metrics.ready(False)
        if self._health.is_serving and self._ended is None:
            await asyncio.sleep(self._settings.lame_duck_seconds)
        admission.close()
        cut = asyncio.get_running_loop().call_later(grace / 2, self._cut_streams)
        closing = asyncio.create_task(self._stop_listening(grace))
        # Only streams and inferences are waited for: a health watch would stay open to the end.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(admission.wait_until_idle(), grace)
            await asyncio.wait({closing}, timeout=_SECONDS_FOR_LAST_STATUS)  # it may still be on its way
        cut.cancel()
        await asyncio.wait({closing, asyncio.create_task(self._stop_listening(0))}, timeout=_SECONDS_TO_CLOSE)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others & self._parts:
            task.cancel()
        if others:  # handlers that were ended may still be at it when stop returns (grpc/grpc#37239)
            await asyncio.wait(others, timeout=_SECONDS_TO_CLOSE)

    async def _stop_listening(self, grace: float) -> None:
        web = () if self._web is None else (self._web.stop(grace),)
        await asyncio.gather(self._listeners.stop(grace), *web)

    def _cut_streams(self) -> None:
        _log.info("ending the remaining streams at an image boundary")
        self._sampling.cut_streams()


def run(main: Coroutine[Any, Any, None], *, log_format: str, worker: int | None = None) -> None:
    """Run a server's main coroutine, with the log on stderr; `worker` tells processes apart where several log.

    Then the process ends, without waiting for threads that may never end: those of a file system, or of a model.
    """
    make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    if sys.platform != "win32":
        import uvloop  # a call costs less CPU time with it

        make_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=make_loop) as runner:
        with writing_log(log_format, worker=worker):
            runner.run(main)
        os._exit(0)
