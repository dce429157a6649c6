"""The gRPC servers of one process, which share its port: what they answer, and what they allow on a connection."""

import asyncio
import errno
import logging
import math
import socket
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from ..config.addresses import cannot_listen, in_brackets
from ..config.settings import ServerSettings
from ..errors import StartError
from ..rpc import open_inference
from ..rpc.admission import OTHER_CALLS
from ..rpc.arrivals import HEAD_SECONDS, max_request_bytes
from ..rpc.context import ServiceContext
from ..rpc.guard import CallGuard
from ..rpc.sampling import SamplingServicer
from ..security.tls import Certificates
from .connections import SLACK, connection_bound
from .health import SERVICES, Health
from .health_check import SAMPLING
from .main_tasks import MAIN, MainTasks
from .ports import SHAREABLE

_HEALTH: Any = health_pb2.DESCRIPTOR.services_by_name["Health"]  # typed by another implementation
_REFLECTION: Any = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
_REFLECTED = (*SERVICES, _HEALTH.full_name, _REFLECTION.full_name)
# grpc.aio takes new calls one by one, each after a turn of the event loop; several listeners take several at once.
_LISTENER_COUNT = 4 if SHAREABLE else 1
_UNREAD_BYTES = 64 * 1024  # of each call
_KEEPALIVE_TIMEOUT_SECONDS = 20
_CLIENT_PING_SECONDS = 10
_NEVER = 2**31 - 1  # milliseconds, as gRPC reads them
_GRPC_LOGGER = "grpc._cython.cygrpc"
_CALLS_BY_PATH = 16  # that wait for a desk; more wait in gRPC, which forgets those whose callers go
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
        guard: CallGuard,
        sampling: SamplingServicer,
        inference: open_inference.OpenInferenceServicer,
        health: Health,
        certificates: Certificates | None,
    ) -> None:
        """`certificates`: None for plaintext. On Linux `reserved_port` must hold the port of the settings."""
        self._settings = context.settings
        self._port = context.settings.port
        self._guard = guard
        self._certificates = certificates
        self._sampling = sampling
        self._health = health
        self._inference = inference
        self._reflecting = reflection.aio.ReflectionServicer(_REFLECTED, _reflected_pool())
        self._servers: set[grpc.aio.Server] = set()
        # By each server's main task, and with what opens another in its place.
        self._open: dict[asyncio.Task[Any], tuple[grpc.aio.Server, Callable[[], Awaitable[None]]]] = {}
        self._is_stopping = False
        self._main_tasks = MainTasks()
        asyncio.get_running_loop().set_task_factory(self._main_tasks)
        asyncio.get_running_loop().set_exception_handler(_note_error)
        logging.getLogger(_GRPC_LOGGER).addFilter(_is_no_end_of_a_listener)

    async def start(self) -> int:
        """Take calls; returns the port. Raises StartError if it is taken."""
        for _ in range(_LISTENER_COUNT):
            calls: asyncio.Queue[Any] = asyncio.Queue(_CALLS_BY_PATH)
            await self._open_door(calls)
            await self._open_desk(calls)
        return self._port

    async def watch(self) -> None:
        """Open each server again that ends, until `stop`. Raises StartError if that is impossible.

        The calls that it answers go on.
        """
        finishing: set[asyncio.Task[None]] = set()
        while True:
            ended, _ = await asyncio.wait({*self._open, *finishing}, return_when=asyncio.FIRST_COMPLETED)
            if self._is_stopping:
                return
            for task in ended & finishing:
                finishing.remove(task)
                task.result()
            for task in ended & self._open.keys():
                server, open_again = self._open.pop(task)
                finishing.add(asyncio.create_task(self._finish(server, self._main_tasks.take_dropped(task))))
                await self._insist(open_again)
                _log.warning("a listener ended (%s) and is open again", _end_of(task))

    async def stop(self, grace: float) -> None:
        """Take no more calls, and end those that still run after `grace` seconds."""
        self._is_stopping = True
        await asyncio.gather(*[server.stop(grace) for server in self._servers])
        for task, (server, _) in list(self._open.items()):
            task.cancel()  # that of a desk waits for a queue
            with suppress(asyncio.CancelledError):
                await server.stop(0)

    async def _open_door(self, calls: asyncio.Queue[Any]) -> None:
        """A server with a port, for the calls of its methods; other calls go to a queue."""
        door = grpc.aio.server(options=channel_options(self._settings, listeners=_LISTENER_COUNT))
        methods = _HEALTH.methods_by_name if self._settings.health == "open" else ()
        self._guard.add(self._sampling, SAMPLING, door)
        self._guard.add(self._health, _HEALTH, door, open_methods=methods)
        if self._settings.reflection:
            self._guard.add(self._reflecting, _REFLECTION, door, open_methods=_REFLECTION.methods_by_name)
        self._add_port(door)
        self._servers.add(door)
        task = await self._main_tasks.start_door(door, calls)
        self._open[task] = door, partial(self._open_door, calls)

    async def _open_desk(self, calls: asyncio.Queue[Any]) -> None:
        """A server for the calls that are found by their path: those of a connection are taken in their order."""
        desk = grpc.aio.server()
        probes = open_inference.PROBES if self._settings.health == "open" else ()
        self._guard.add(self._inference, open_inference.DESCRIPTOR, desk, open_methods=probes, in_order=True)
        task = await self._main_tasks.start_desk(desk, calls)
        self._open[task] = desk, partial(self._open_desk, calls)

    def _add_port(self, server: grpc.aio.Server) -> None:
        address = f"{in_brackets(self._settings.host)}:{self._port}"
        try:
            if self._certificates is None:
                self._port = server.add_insecure_port(address)
            else:
                self._port = server.add_secure_port(address, self._certificates.credentials())
        except RuntimeError as error:
            raise StartError(cannot_listen(_cause(error), self._settings.host, self._port)) from error

    async def _insist(self, open_again: Callable[[], Awaitable[None]]) -> None:
        for seconds in _SECONDS_BEFORE_OPENING_AGAIN:
            try:
                return await open_again()
            except StartError as error:  # there may be no more files for a moment
                _log.error("%s; trying again", error)
                await asyncio.sleep(seconds)
        return await open_again()

    async def _finish(self, server: grpc.aio.Server, dropped: object) -> None:
        """Let the calls of a server that ended end, and free it, and then what it dropped."""
        for _ in range(_TURNS_OF_GRPC):
            await asyncio.sleep(0)
        with suppress(Exception, asyncio.CancelledError):  # unless grpc.aio did, who stops it first gets its end
            await server.stop(_LONGEST_SECONDS)
        await server.stop(_LONGEST_SECONDS)
        self._servers.discard(server)


def _reflected_pool() -> DescriptorPool:
    """What reflection tells of: the services and the details of errors, which are of two pools."""
    pool, known = DescriptorPool(), set[str]()

    def add(file: FileDescriptor) -> None:
        if file.name not in known:
            known.add(file.name)
            for each in file.dependencies:
                add(each)
            pool.AddSerializedFile(file.serialized_pb)

    for each in (SAMPLING, open_inference.DESCRIPTOR, _HEALTH, _REFLECTION):
        add(each.file)
    add(error_details_pb2.DESCRIPTOR)
    return pool


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


def channel_options(settings: ServerSettings, *, listeners: int = 1) -> list[tuple[str, int]]:
    """What gRPC is to allow on a connection, and how it finds out that the other side is gone."""
    calls = min(settings.max_streams_per_caller, settings.max_streams + settings.max_queued_calls) + OTHER_CALLS
    # Connections are spread unevenly, so each listener has more room; `Connections` keeps the bound of all.
    connections = math.ceil(SLACK * connection_bound(settings) / listeners)
    return [
        ("grpc.so_reuseport", int(SHAREABLE)),
        ("grpc.max_receive_message_length", max_request_bytes(settings)),
        # Before a request is read, its sender has no more room than this, and it gets no more for speed.
        ("grpc.http2.lookahead_bytes", _UNREAD_BYTES),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.server_handshake_timeout_ms", 1000 * HEAD_SECONDS),  # TLS and the first frame of HTTP/2
        # Until its settings are acknowledged, gRPC takes 16 MiB of metadata from the other side.
        ("grpc.http2.settings_timeout", 1000 * HEAD_SECONDS),
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
