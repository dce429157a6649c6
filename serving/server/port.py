"""The server's port, which on Linux several listening sockets share."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import StartError

SHAREABLE = sys.platform == "linux"
"""Whether this system spreads connections over the sockets that share a port (SO_REUSEPORT)."""


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
        raise port_taken(host, port) from error
    with reserved:
        yield address[1]


def port_taken(host: str, port: int) -> StartError:
    """The error if an address cannot be listened on."""
    return StartError(
        f"cannot listen on {host}:{port}; is another server there? Choose another --port, or 0 for a free one"
    )
