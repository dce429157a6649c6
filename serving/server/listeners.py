"""The gRPC servers of one process, which share its port: what they answer, and what they allow on a connection."""

import asyncio
import math
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from ..config.settings import ServerSettings
from ..errors import StartError
from ..models.registry import Registry
from ..rpc import open_inference
from ..rpc.admission import OTHER_CALLS
from ..rpc.context import CurrentModels, ServiceContext
from ..rpc.guard import CallGuard
from ..rpc.sampling import SamplingServicer
from ..security.tls import Certificates
from .connections import SLACK, connection_bound
from .health_check import SAMPLING, model_service

_HEALTH: Any = health_pb2.DESCRIPTOR.services_by_name["Health"]  # typed by another implementation
_REFLECTION: Any = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
_STATUS = health_pb2.HealthCheckResponse
_SERVICES = (SAMPLING.full_name, open_inference.DESCRIPTOR.full_name)  # those that compute images
_REFLECTED = (*_SERVICES, _HEALTH.full_name, _REFLECTION.full_name)
SHAREABLE = sys.platform == "linux"
"""Whether this system spreads connections over the sockets that share a port (SO_REUSEPORT)."""
# grpc.aio takes new calls one by one, each after a turn of the event loop; several listeners take several at once.
_LISTENERS = 4
_GRPC_RECEIVE_BYTES = 4 * 1024 * 1024
_UNREAD_BYTES = 64 * 1024  # of each call
_HANDSHAKE_SECONDS = 10
_KEEPALIVE_TIMEOUT_SECONDS = 20
_CLIENT_PING_SECONDS = 10
_NEVER = 2**31 - 1  # milliseconds, as gRPC reads them


class Health:
    """The health of the server, and of each model as a service of its own; NOT_SERVING at first."""

    def __init__(self, models: CurrentModels) -> None:
        self.servicer = health.aio.HealthServicer()
        self.is_serving = False
        """Whether calls will be answered; `tell` says it to those who ask."""
        self._models = models
        self._names: set[str] = set()  # of every model that was there

    async def tell(self) -> None:
        """Set the health of every service and model by `is_serving` and the current models."""
        registry = self._models.registry or Registry(())
        self._names |= {*registry.names, *(failure.model for failure in registry.failures)}
        states = dict.fromkeys(("", *_SERVICES), self.is_serving)
        states |= {model_service(name): self.is_serving and name in registry.names for name in self._names}
        for service, is_serving in states.items():
            await self.servicer.set(service, _STATUS.SERVING if is_serving else _STATUS.NOT_SERVING)


class Listeners:
    """grpc.aio servers that answer the same services."""

    def __init__(self, context: ServiceContext, sampling: SamplingServicer, health: Health) -> None:
        """On Linux `reserved_port` must hold the port of the settings."""
        self._settings = context.settings
        count = _LISTENERS if SHAREABLE else 1
        options = channel_options(context.settings, listeners=count)
        self._servers = [grpc.aio.server(options=options) for _ in range(count)]
        guard, health_is_open = CallGuard(context), context.settings.health == "open"
        inference = open_inference.OpenInferenceServicer(context)
        reflecting = reflection.aio.ReflectionServicer(_REFLECTED)
        for server in self._servers:
            guard.add(sampling, SAMPLING, server)
            probes = open_inference.PROBES if health_is_open else ()
            guard.add(inference, open_inference.DESCRIPTOR, server, open_methods=probes, in_order=True)
            methods = _HEALTH.methods_by_name
            guard.add(health.servicer, _HEALTH, server, open_methods=methods if health_is_open else ())
            if context.settings.reflection:
                guard.add(reflecting, _REFLECTION, server, open_methods=_REFLECTION.methods_by_name)

    async def start(self, certificates: Certificates | None) -> int:
        """Take calls; returns the port. Raises StartError if it is taken."""
        host, port = self._settings.host, self._settings.port
        for server in self._servers:
            try:
                if certificates is None:
                    port = server.add_insecure_port(f"{host}:{port}")
                else:
                    port = server.add_secure_port(f"{host}:{port}", certificates.credentials())
            except RuntimeError as error:
                raise _port_taken(host, port) from error
            # Cancelled half-way, grpc.aio's own task would answer a future that is gone, and fail.
            await asyncio.shield(server.start())
        return port

    async def stop(self, grace: float) -> None:
        """Take no more calls, and end those that still run after `grace` seconds."""
        await asyncio.gather(*[server.stop(grace) for server in self._servers])


def channel_options(settings: ServerSettings, *, listeners: int = 1) -> list[tuple[str, int]]:
    """What gRPC is to allow on a connection, and how it finds out that the other side is gone."""
    calls = min(settings.max_streams_per_caller, settings.max_streams + settings.max_queued_calls) + OTHER_CALLS
    # Connections are spread unevenly, so each listener has more room; `Connections` keeps the bound of all.
    connections = math.ceil(SLACK * connection_bound(settings) / listeners)
    return [
        ("grpc.so_reuseport", int(SHAREABLE)),
        # A request may be as large as an answer; gRPC's own limit is never lowered.
        ("grpc.max_receive_message_length", max(settings.max_message_bytes, _GRPC_RECEIVE_BYTES)),
        # Before a request is read, its sender has no more room than this, and it gets no more for speed.
        ("grpc.http2.lookahead_bytes", _UNREAD_BYTES),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.server_handshake_timeout_ms", 1000 * _HANDSHAKE_SECONDS),  # TLS and the first frame of HTTP/2
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


@contextmanager
def reserved_port(host: str, port: int) -> Iterator[int]:
    """Hold a port for the sockets that will share it; 0 picks a free one. Raises StartError if it is taken."""
    if not SHAREABLE:
        yield port
        return
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family) as exclusive:  # another server that shares its port would let us in
            exclusive.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            exclusive.bind(address)
            address = exclusive.getsockname()
        reserved = socket.socket(family)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)  # it never listens, so it gets no connections
    except OSError as error:
        raise _port_taken(host, port) from error
    with reserved:
        yield address[1]


def _port_taken(host: str, port: int) -> StartError:
    return StartError(
        f"cannot listen on {host}:{port}; is another server there? Choose another --port, or 0 for a free one"
    )
