"""The server's life: start, load and warm up, serve, and stop without losing an image."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from bgan.v1 import sampling_pb2, sampling_pb2_grpc

from ..config.default_models import described
from ..config.settings import ServerSettings
from ..models.registry import Registry
from ..models.repository import Repository
from ..rpc import open_inference
from ..rpc.admission import Admission
from ..rpc.guard import guarded
from ..rpc.parsing import TolerantServer
from ..rpc.sampling import SamplingServicer
from ..security.auth import ALLOW_ALL, Authenticator, build_authenticator
from ..security.tls import certificates_of
from ..security.watched_files import POLL_SECONDS
from ..telemetry.calls import Calls
from ..telemetry.logs import start_log
from ..telemetry.metrics import Metrics
from ..telemetry.start import start_metrics, start_tracing
from .health_check import model_service
from .port import SHAREABLE, port_taken, reserved_port
from .systemd import READY, STOPPING, notify

_DESCRIPTOR = sampling_pb2.DESCRIPTOR.services_by_name["SamplingService"]
_HEALTH: Any = health_pb2.DESCRIPTOR.services_by_name["Health"]  # typed by another implementation
_REFLECTION: Any = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
SERVICES = (_DESCRIPTOR.full_name, open_inference.SERVICE)
_REFLECTED = (*SERVICES, _HEALTH.full_name, _REFLECTION.full_name)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_AFTERMATH_SECONDS = 0.5
_GRPC_RECEIVE_BYTES = 4 * 1024 * 1024
_CALLS_BESIDES = 64  # health, reflection, lists of models
_KEEPALIVE_TIMEOUT_SECONDS = 20
_CLIENT_PING_SECONDS = 10
_NEVER = 2**31 - 1  # milliseconds, as gRPC reads them
_LOOKS_FOR_STALLED_READERS = 4  # in the time after which they are ended
# grpc.aio takes new calls one by one, each after a turn of the event loop; several listeners take several at once.
_LISTENERS = 4
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
            notify(READY)
            following = asyncio.create_task(server.follow())
            await stop.wait()
            notify(STOPPING)
            following.cancel()
    _log.info("stopped")


def stop_signal(*numbers: signal.Signals) -> asyncio.Event:
    """An event that these signals set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    return stop


class Server:
    """The gRPC server with its health, reflection and services; leaving its context stops it in order."""

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        """Make a server that does not listen yet. On Linux its port is to be held by `reserved_port`.

        Raises ServingError if the certificates or the tokens are no good.
        """
        threads = settings.threads or max(1, (os.cpu_count() or 1) // settings.workers)
        self._settings = settings
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._metrics = metrics
        self._tracing = start_tracing(settings)
        self._calls = Calls(settings, self._tracing)
        self._access = build_authenticator(settings)
        self._certificates = certificates_of(settings)
        self._admission = Admission(settings, metrics)
        self._servicer = SamplingServicer(
            settings, self._admission, self._executor, threads=threads, metrics=metrics
        )
        self._repository = Repository(
            settings.models,
            default_model=settings.default_model,
            versions=settings.model_versions,
            keep_seconds=settings.model_keep_seconds,
            max_bytes=settings.max_model_bytes,
        )
        # Models are loaded beside the calls, not in their way.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="models")
        self._status: int = _NOT_SERVING
        self._known_models: set[str] = set()
        self._health = health.aio.HealthServicer()
        self._reflection = reflection.aio.ReflectionServicer(_REFLECTED)
        self._listeners = [self._make_listener() for _ in range(_LISTENERS if SHAREABLE else 1)]

    def _services(self) -> Iterator[tuple[Callable[[Any, Any], None], object, Any, Authenticator]]:
        """What there is beside the Open Inference Protocol: how it is added, what answers, and who is let in."""
        yield (
            sampling_pb2_grpc.add_SamplingServiceServicer_to_server,
            self._servicer,
            _DESCRIPTOR,
            self._access,
        )
        access = self._access if self._settings.health == "token" else ALLOW_ALL
        yield health_pb2_grpc.add_HealthServicer_to_server, self._health, _HEALTH, access
        if self._settings.reflection:
            add = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
            yield add, self._reflection, _REFLECTION, ALLOW_ALL

    def _make_listener(self) -> grpc.aio.Server:
        listener = grpc.aio.server(options=channel_options(self._settings))
        services: Any = TolerantServer(listener)  # not by its type what generated code asks for
        for add, servicer, service, access in self._services():
            add(guarded(servicer, service, self._metrics, self._calls, access), services)
        open_inference.register(
            services,
            self._settings,
            self._admission,
            self._executor,
            lambda: self._servicer.registry,
            self._metrics,
            self._calls,
            self._access,
        )
        return listener

    async def __aenter__(self) -> Self:
        await self._tell_health()
        self._watching = asyncio.gather(self._end_stalled_readers(), self._follow_secrets())
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stop()
        self._watching.cancel()
        self._executor.shutdown()
        self._loader.shutdown()
        self._tracing.stop()

    async def listen(self) -> int:
        """Take calls; returns the port. Raises StartError if it is taken."""
        host, port = self._settings.host, self._settings.port
        for listener in self._listeners:
            try:
                if self._certificates is None:
                    port = listener.add_insecure_port(f"{host}:{port}")
                else:
                    port = listener.add_secure_port(f"{host}:{port}", self._certificates.credentials())
            except RuntimeError as error:
                raise port_taken(host, port) from error
            # Cancelled half-way, grpc.aio's own task would answer a future that is gone, and fail.
            await asyncio.shield(listener.start())
        return port

    async def load(self) -> Registry:
        """Load, check and warm the models. Raises StartError if there is none to serve."""
        _log.info("loading %s", described(self._settings.models))
        registry = await asyncio.get_running_loop().run_in_executor(self._loader, self._repository.load)
        await self._serve(registry)
        return registry

    async def follow(self, changed: Callable[[Registry], None] = lambda registry: None) -> None:
        """Follow the folder of models until cancelled; `changed` is told of the models after each change."""
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
        self._status = _SERVING
        await self._tell_health()
        self._metrics.ready(True)

    async def _serve(self, registry: Registry) -> None:
        self._servicer.serve(registry)
        await self._tell_health()

    async def _end_stalled_readers(self) -> None:
        while True:
            await asyncio.sleep(self._settings.stalled_write_seconds / _LOOKS_FOR_STALLED_READERS)
            self._admission.end_stalled()

    async def _follow_secrets(self) -> None:
        """Follow the files of certificates and tokens."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._access.poll()
                if self._certificates is not None:
                    await self._certificates.poll()
            except Exception:
                _log.exception("certificates and tokens cannot be followed; they stay as they are")

    async def _stop(self) -> None:
        """Turn unhealthy, and after the lame-duck time take no more calls and give streams the grace period.

        After half of it they are cut.
        """
        await self._health.enter_graceful_shutdown()
        self._metrics.ready(False)
        if self._status == _SERVING:
            await asyncio.sleep(self._settings.lame_duck_seconds)
        self._admission.close()
        grace = self._settings.grace_seconds
        cut = asyncio.get_running_loop().call_later(grace / 2, self._cut_streams)
        closing = asyncio.create_task(self._stop_listeners(grace))
        # Only streams and inferences are waited for: a health watch would stay open to the end.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._admission.wait_until_idle(), grace)
        cut.cancel()
        await asyncio.wait({closing}, timeout=_AFTERMATH_SECONDS)  # the last status may still be on its way
        await self._stop_listeners(0)
        await closing
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:  # handlers that were ended may still be at it when stop returns (grpc/grpc#37239)
            await asyncio.wait(others, timeout=_AFTERMATH_SECONDS)

    async def _stop_listeners(self, grace: float) -> None:
        await asyncio.gather(*[listener.stop(grace) for listener in self._listeners])

    def _cut_streams(self) -> None:
        _log.info("ending the streams that are left, at an image boundary")
        self._servicer.cut_streams()

    async def _tell_health(self) -> None:
        """The health of the server, and of each model as a service of its own."""
        registry = self._servicer.registry
        served = registry.names if registry is not None else ()
        broken = {failure.model for failure in registry.failures} if registry is not None else set()
        self._known_models |= {*served, *broken}
        for service in ("", *SERVICES):
            await self._health.set(service, self._status)
        for name in self._known_models:
            await self._health.set(model_service(name), self._status if name in served else _NOT_SERVING)


def channel_options(settings: ServerSettings) -> list[tuple[str, int]]:
    """What gRPC is to allow on a connection, and how it finds out that the other side is gone."""
    calls = settings.max_streams + settings.max_queued_calls + _CALLS_BESIDES
    return [
        ("grpc.so_reuseport", int(SHAREABLE)),
        # A request may be as large as an answer; gRPC's own limit is never lowered.
        ("grpc.max_receive_message_length", max(settings.max_message_bytes, _GRPC_RECEIVE_BYTES)),
        # More calls on one connection wait at the client; what it did not read of ended ones is bounded too.
        ("grpc.max_concurrent_streams", min(calls, 2**31 - 1)),
        # Calls in flight are not cut: gRPC gives them all the time they need.
        ("grpc.max_connection_age_ms", math.ceil(1000 * settings.max_connection_age_seconds) or _NEVER),
        ("grpc.keepalive_time_ms", round(1000 * settings.keepalive_seconds)),
        ("grpc.keepalive_timeout_ms", 1000 * _KEEPALIVE_TIMEOUT_SECONDS),
        ("grpc.http2.ping_timeout_ms", 1000 * _KEEPALIVE_TIMEOUT_SECONDS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # How often clients may ask; gRPC's own limit is once in 5 minutes, and it ends connections that ask more.
        ("grpc.http2.min_ping_interval_without_data_ms", 1000 * _CLIENT_PING_SECONDS),
    ]


def run(main: Coroutine[Any, Any, None], *, log_format: str, worker: int | None = None) -> None:
    """Run a server's main coroutine, with the log on stderr; `worker` tells processes apart where several log."""
    start_log(log_format, worker=worker)
    if sys.platform == "win32":
        asyncio.run(main)
    else:
        import uvloop  # a call costs less CPU time with it

        uvloop.run(main)
