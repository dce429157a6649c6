"""The port of a server, held for the sockets that share it."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..config.addresses import cannot_listen
from ..errors import StartError

SHAREABLE = sys.platform == "linux"
"""Whether this system spreads connections over the sockets that share a port (SO_REUSEPORT)."""


@contextmanager
def reserved_port(host: str, port: int) -> Iterator[int]:
    """Hold a port for the sockets that will share it; 0 picks a free one.

    Raises StartError if the port is taken, or the host is not of this machine.
    """
    if not SHAREABLE:
        yield port
        return
    if host == "*":
        raise StartError(cannot_listen(OSError(), host, port))
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
        raise StartError(cannot_listen(error, host, port)) from error
    with reserved:
        yield address[1]
