"""The ports of a server, held for the sockets that share them."""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

from ..config.addresses import cannot_listen
from ..config.settings import ServerSettings
from ..errors import StartError

SHAREABLE = sys.platform == "linux"
"""Whether this system spreads connections over the sockets that share a port (SO_REUSEPORT)."""


@contextmanager
def reserved_ports(settings: ServerSettings) -> Iterator[ServerSettings]:
    """The settings with ports that are held for their sockets: gRPC's, and HTTP's if there is one.

    Raises StartError as `reserved_port` does.
    """
    with ExitStack() as held:
        ports = {"port": held.enter_context(reserved_port(settings.host, settings.port))}
        if settings.http_port is not None:
            ports["http_port"] = held.enter_context(reserved_port(settings.host, settings.http_port, use="HTTP"))
        yield settings.model_copy(update=ports)


@contextmanager
def reserved_port(host: str, port: int, *, use: Literal["", "HTTP"] = "") -> Iterator[int]:
    """Hold a port for the sockets that will share it; 0 picks a free one.

    Raises StartError if the port is taken, or the host is not of this machine.
    """
    if not SHAREABLE:
        yield port
        return
    if host == "*":
        raise StartError(cannot_listen(OSError(), host, port, use=use))
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
    except (OSError, UnicodeError) as error:
        raise StartError(cannot_listen(error, host, port, use=use)) from error
    with reserved:
        yield address[1]
