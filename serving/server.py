"""The server's life: start, load and warm up, serve, and stop without losing an image."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from bgan.v1 import sampling_pb2, sampling_pb2_grpc

from . import open_inference
from .config import ServerSettings
from .model_folder import default_model, described
from .port import SHAREABLE, port_taken, reserved_port
from .registry import Registry, load_registry
from .servicer import SamplingServicer
from .status import guarded

_DESCRIPTOR = sampling_pb2.DESCRIPTOR.services_by_name["SamplingService"]
SERVICES = (_DESCRIPTOR.full_name, open_inference.SERVICE)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_AFTERMATH_SECONDS = 0.5
# grpc.aio takes new calls one by one, each after a turn of the event loop; several listeners take several at once.
_LISTENERS = 4
_log = logging.getLogger(__name__)


async def serve(settings: ServerSettings) -> None:
    """Serve from this process until SIGTERM or SIGINT. Raises StartError or ModelFileError if it cannot start."""
    stop = stop_signal(signal.SIGTERM, signal.SIGINT)
    with reserved_port(settings.host, settings.port) as port:
        async with Server(settings.model_copy(update={"port": port})) as server:
            listening_on = await server.listen()
            await server.load()
            await server.turn_healthy()
            _log.info("serving on %s:%d", settings.host, listening_on)
            await stop.wait()
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

    def __init__(self, settings: ServerSettings) -> None:
        """Make a server that does not listen yet. On Linux its port is to be held by `reserved_port`."""
        threads = settings.threads or max(1, (os.cpu_count() or 1) // settings.workers)
        self._settings = settings
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._servicer = SamplingServicer(settings, self._executor, threads=threads)
        self._health = health.aio.HealthServicer()
        self._listeners = [self._make_listener() for _ in range(_LISTENERS if SHAREABLE else 1)]

    def _make_listener(self) -> grpc.aio.Server:
        options = [("grpc.so_reuseport", int(SHAREABLE)), *open_inference.server_options(self._settings)]
        listener = grpc.aio.server(options=options)
        servicer = guarded(self._servicer, _DESCRIPTOR)
        sampling_pb2_grpc.add_SamplingServiceServicer_to_server(servicer, listener)
        open_inference.register(listener, self._settings, self._executor, lambda: self._servicer.registry)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, listener)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), listener)
        return listener

    async def __aenter__(self) -> Self:
        await self._set_health(_NOT_SERVING)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stop()
        self._executor.shutdown()

    async def listen(self) -> int:
        """Take calls; returns the port. Raises StartError if it is taken."""
        host, port = self._settings.host, self._settings.port
        for listener in self._listeners:
            try:
                port = listener.add_insecure_port(f"{host}:{port}")
            except RuntimeError as error:
                raise port_taken(host, port) from error
            await listener.start()
        return port

    async def load(self) -> Registry:
        """Load, check and warm the models."""
        folder = self._settings.models
        default = self._settings.default_model or default_model(folder)
        _log.info("loading %s", described(folder))

        def load() -> Registry:
            return load_registry(folder, default_model=default)

        registry = await asyncio.get_running_loop().run_in_executor(self._executor, load)
        for engine in registry.engines.values():
            _log.info("loaded %s, revision %s", engine.manifest.name, engine.revision)
        self._servicer.serve(registry)
        return registry

    async def turn_healthy(self) -> None:
        """Say that calls will be answered."""
        await self._set_health(_SERVING)

    async def _stop(self) -> None:
        """Turn unhealthy, take no more calls, and give streams the grace period; after half of it, cut them."""
        await self._health.enter_graceful_shutdown()
        grace = self._settings.grace_seconds
        cut = asyncio.get_running_loop().call_later(grace / 2, self._cut_streams)
        closing = asyncio.create_task(self._stop_listeners(grace))
        # Only streams of images are waited for: a health watch would stay open to the end.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._servicer.wait_until_idle(), grace)
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

    async def _set_health(self, status: int) -> None:
        for service in ("", *SERVICES):
            await self._health.set(service, status)


def run(main: Coroutine[Any, Any, None], *, name: str = "") -> None:
    """Run a server's main coroutine, with logs on stderr; `name` tells them apart where several processes log."""
    logging.basicConfig(format=f"%(asctime)s %(levelname)s {name}%(message)s", level=logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_no_cancellation)
    if sys.platform == "win32":
        asyncio.run(main)
    else:
        import uvloop  # a call costs less CPU time with it

        uvloop.run(main)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    # grpc.aio logs every call that is still open when the server stops, with a trace, as an error.
    return not (record.exc_info and record.exc_info[0] is asyncio.CancelledError)
