"""The server's life: start, load and warm up, serve, and stop without losing an image."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from bgan.v1 import sampling_pb2, sampling_pb2_grpc

from . import open_inference
from .config import ServerSettings
from .errors import StartError
from .interceptors import ErrorInterceptor
from .registry import Registry, load_registry
from .servicer import SamplingServicer

SERVICE = sampling_pb2.DESCRIPTOR.services_by_name["SamplingService"].full_name
SERVICES = (SERVICE, open_inference.SERVICE)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_AFTERMATH_SECONDS = 0.5
_log = logging.getLogger(__name__)


async def serve(settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartError or ModelFileError if it cannot start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    threads = settings.threads or os.cpu_count() or 1
    with ThreadPoolExecutor(threads, thread_name_prefix="inference") as executor:
        server = _Server(settings, executor, threads)
        port = await server.start()
        try:
            await server.load()
            _log.info("serving on %s:%d", settings.host, port)
            await stop.wait()
        finally:
            await server.stop()
    _log.info("stopped")


class _Server:
    """The gRPC server with its health, reflection and servicer."""

    def __init__(self, settings: ServerSettings, executor: ThreadPoolExecutor, threads: int) -> None:
        self._settings = settings
        self._executor = executor
        self._servicer = SamplingServicer(settings, executor, threads=threads)
        self._health = health.aio.HealthServicer()
        # Without this option two servers could share a port by accident, each taking half of the calls.
        options = [("grpc.so_reuseport", 0), *open_inference.server_options(settings)]
        self._grpc = grpc.aio.server(interceptors=[ErrorInterceptor(SERVICES)], options=options)
        sampling_pb2_grpc.add_SamplingServiceServicer_to_server(self._servicer, self._grpc)
        open_inference.register(self._grpc, settings, executor, lambda: self._servicer.registry)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._grpc)

    async def start(self) -> int:
        """Listen, not yet healthy; returns the port. Raises StartError if it is taken."""
        await self._set_health(_NOT_SERVING)
        address = f"{self._settings.host}:{self._settings.port}"
        try:
            port = self._grpc.add_insecure_port(address)
        except RuntimeError as error:
            raise StartError(
                f"cannot listen on {address}; is another server there? Choose another --port, or 0 for a free one"
            ) from error
        await self._grpc.start()
        return port

    async def load(self) -> None:
        """Load, check and warm the models, then turn healthy."""
        settings = self._settings

        def load() -> Registry:
            return load_registry(settings.models, default_model=settings.default_model)

        registry = await asyncio.get_running_loop().run_in_executor(self._executor, load)
        for engine in registry.engines.values():
            _log.info("loaded %s, revision %s", engine.manifest.name, engine.revision)
        self._servicer.serve(registry)
        await self._set_health(_SERVING)

    async def stop(self) -> None:
        """Turn unhealthy, take no more calls, and give streams the grace period; after half of it, cut them."""
        await self._health.enter_graceful_shutdown()
        grace = self._settings.grace_seconds
        cut = asyncio.get_running_loop().call_later(grace / 2, self._cut_streams)
        closing = asyncio.create_task(self._grpc.stop(grace))
        # Only streams of images are waited for: a health watch would stay open to the end.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._servicer.wait_until_idle(), grace)
        cut.cancel()
        await asyncio.wait({closing}, timeout=_AFTERMATH_SECONDS)  # the last status may still be on its way
        await self._grpc.stop(0)
        await closing
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:  # handlers that were ended may still be at it when stop returns (grpc/grpc#37239)
            await asyncio.wait(others, timeout=_AFTERMATH_SECONDS)

    def _cut_streams(self) -> None:
        _log.info("ending the streams that are left, at an image boundary")
        self._servicer.cut_streams()

    async def _set_health(self, status: int) -> None:
        for service in ("", *SERVICES):
            await self._health.set(service, status)


def run(settings: ServerSettings) -> None:
    """Serve from a process of its own, with logs on stderr."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_no_cancellation)
    asyncio.run(serve(settings))


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    # grpc.aio logs every call that is still open when the server stops, with a trace, as an error.
    return not (record.exc_info and record.exc_info[0] is asyncio.CancelledError)
