"""The ports of a server, held for the sockets that share them."""

import os
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
    with bound_socket(host, port, use=use, is_shared=False) as exclusive:  # other servers may share theirs with us
        port = exclusive.getsockname()[1]
    with bound_socket(host, port, use=use):  # it never listens, so it gets no connections
        yield port


def bound_socket(host: str, port: int, *, use: Literal["", "HTTP"] = "", is_shared: bool = True) -> socket.socket:
    """A socket on a port that others of this server may have too, or on one that nobody has.

    Raises StartError if the port is taken, or the host is not of this machine.
    """
    bound = None
    try:
        family, *_, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family)
        if os.name == "posix":  # elsewhere others could take the port over
            # Connections of an earlier server may linger.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_shared and SHAREABLE:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except (OSError, UnicodeError) as error:
        if bound is not None:
            bound.close()
        raise StartError(cannot_listen(error, host, port, use=use)) from error
    return bound
