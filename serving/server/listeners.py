"""The gRPC servers of one process, which share its port: what they answer, and what they allow on a connection."""

import asyncio
import errno
import logging
import math
import socket
import traceback
from contextlib import suppress
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from ..config.addresses import cannot_listen, in_brackets
from ..config.settings import ServerSettings
from ..errors import StartError
from ..rpc import open_inference
from ..rpc.context import ServiceContext
from ..rpc.guard import CallGuard
from ..rpc.sampling import SamplingServicer
from ..security.tls import Certificates
from .health import SERVICES, Health
from .health_check import SAMPLING
from .main_tasks import MAIN, MainTasks
from .ports import SHAREABLE

_HEALTH: Any = health_pb2.DESCRIPTOR.services_by_name["Health"]  # typed by another implementation
_REFLECTION: Any = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
_REFLECTED = (*SERVICES, _HEALTH.full_name, _REFLECTION.full_name)
# grpc.aio takes new calls one by one, each after a turn of the event loop; several listeners take several at once.
_LISTENERS = 4
_GRPC_RECEIVE_BYTES = 4 * 1024 * 1024
_OTHER_CALLS = 64  # health, reflection, lists of models
_KEEPALIVE_TIMEOUT_SECONDS = 20
_CLIENT_PING_SECONDS = 10
_NEVER = 2**31 - 1  # milliseconds, as gRPC reads them
_GRPC_LOGGER = "grpc._cython.cygrpc"
_SECONDS_BEFORE_OPENING_AGAIN = (0.1, 0.5, 1, 2, 5)
# After an error grpc.aio stops a listener itself; if another did so before, that would cancel its calls.
_TURNS_OF_GRPC = 5
_LONGEST_SECONDS = 86400.0  # of a call whose listener ended
_log = logging.getLogger(__name__)


class Listeners:
    """grpc.aio servers that answer the same services. One that ends before it is to is opened again."""

    def __init__(
        self,
        context: ServiceContext,
        sampling: SamplingServicer,
        health: Health,
        certificates: Certificates | None,
    ) -> None:
        """`certificates`: None for plaintext. On Linux `reserved_port` must hold the port of the settings."""
        self._settings = context.settings
        self._port = context.settings.port
        self._guard = CallGuard(context)
        self._certificates = certificates
        self._sampling = sampling
        self._health = health
        self._inference = open_inference.OpenInferenceServicer(context)
        self._reflecting = reflection.aio.ReflectionServicer(_REFLECTED)
        self._servers: set[grpc.aio.Server] = set()
        self._accepting: dict[asyncio.Task[Any], grpc.aio.Server] = {}  # by the task that takes its calls
        self._is_stopping = False
        self._main_tasks = MainTasks()
        asyncio.get_running_loop().set_task_factory(self._main_tasks)
        asyncio.get_running_loop().set_exception_handler(_note_error)
        logging.getLogger(_GRPC_LOGGER).addFilter(_is_no_end_of_a_listener)

    async def start(self) -> int:
        """Take calls; returns the port. Raises StartError if it is taken."""
        for _ in range(_LISTENERS if SHAREABLE else 1):
            await self._open()
        return self._port

    async def watch(self) -> None:
        """Open each listener again that ends, until cancelled. Raises StartError if that is impossible.

        One header with bytes that are no UTF-8 ends grpc.aio's task, and the listener with it. The calls that it
        answers go on.
        """
        finishing: set[asyncio.Task[None]] = set()
        while True:
            ended, _ = await asyncio.wait({*self._accepting, *finishing}, return_when=asyncio.FIRST_COMPLETED)
            if self._is_stopping:
                return
            for task in ended & finishing:
                finishing.remove(task)
                task.result()
            for task in ended & self._accepting.keys():
                finishing.add(
                    asyncio.create_task(
                        self._finish(self._accepting.pop(task), self._main_tasks.take_dropped(task))
                    )
                )
                await self._reopen()
                _log.warning("a listener ended (%s) and is open again", _end_of(task))

    async def stop(self, grace: float) -> None:
        """Take no more calls, and end those that still run after `grace` seconds."""
        self._is_stopping = True
        await asyncio.gather(*[server.stop(grace) for server in self._servers])

    async def _open(self) -> None:
        server = self._make()
        address = f"{in_brackets(self._settings.host)}:{self._port}"
        try:
            if self._certificates is None:
                self._port = server.add_insecure_port(address)
            else:
                self._port = server.add_secure_port(address, self._certificates.credentials())
        except RuntimeError as error:
            raise StartError(cannot_listen(_cause(error), self._settings.host, self._port)) from error
        self._servers.add(server)
        # Cancelled half-way, grpc.aio's own task would answer a future that is gone, and fail.
        await asyncio.shield(server.start())
        if self._main_tasks.last is None:
            raise RuntimeError("this version of grpcio has other tasks than those that are watched")
        self._accepting[self._main_tasks.last] = server

    def _make(self) -> grpc.aio.Server:
        server = grpc.aio.server(options=channel_options(self._settings))
        health_is_open = self._settings.health == "open"
        add = self._guard.add
        add(self._sampling, SAMPLING, server)
        probes = open_inference.PROBES if health_is_open else ()
        add(self._inference, open_inference.DESCRIPTOR, server, open_methods=probes, in_order=True)
        add(self._health, _HEALTH, server, open_methods=_HEALTH.methods_by_name if health_is_open else ())
        if self._settings.reflection:
            add(self._reflecting, _REFLECTION, server, open_methods=_REFLECTION.methods_by_name)
        return server

    async def _reopen(self) -> None:
        for seconds in _SECONDS_BEFORE_OPENING_AGAIN:
            try:
                return await self._open()
            except StartError as error:  # there may be no more files for a moment
                _log.error("%s; trying again", error)
                await asyncio.sleep(seconds)
        return await self._open()

    async def _finish(self, server: grpc.aio.Server, requests: object) -> None:
        """Let an ended listener's calls end, and free it, and then its requests."""
        for _ in range(_TURNS_OF_GRPC):
            await asyncio.sleep(0)
        with suppress(Exception):  # if grpc.aio did not stop it, the first stop raises what ended it
            await server.stop(_LONGEST_SECONDS)
        await server.stop(_LONGEST_SECONDS)
        self._servers.discard(server)


def _cause(error: RuntimeError) -> OSError:
    """Why gRPC could not open a port, which it does not say: where the port is reserved, files may be lacking."""
    if not SHAREABLE:
        return OSError(errno.EADDRINUSE, str(error))
    try:
        socket.socket().close()
    except OSError as lacking:
        return lacking
    return OSError(0, str(error).partition(";")[0])


def _end_of(task: asyncio.Task[Any]) -> str:
    error = None if task.cancelled() else task.exception()
    return "without an error" if error is None else f"{type(error).__name__}: {error}"


def _note_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody waited for, but for the error that ended a listener, which grpc.aio raises twice."""
    trace = traceback.extract_tb(getattr(context.get("exception"), "__traceback__", None))
    if all(not MAIN.endswith(f".{frame.name}") for frame in trace):
        loop.default_exception_handler(context)


def _is_no_end_of_a_listener(record: logging.LogRecord) -> bool:
    # grpc.aio logs the error itself, and a trace of nothing; `Listeners.watch` says it in one line.
    return not isinstance(record.msg, BaseException)


def channel_options(settings: ServerSettings) -> list[tuple[str, int]]:
    """What gRPC is to allow on a connection, and how it finds out that the other side is gone."""
    calls = settings.max_streams + settings.max_queued_calls + _OTHER_CALLS
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
