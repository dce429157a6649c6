"""The port that shows metrics, in HTTP: connections that ask nothing hold neither threads nor files for long."""

import socket
from contextlib import suppress
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

MAX_CONNECTIONS = 16
"""Connections at once; the oldest makes room for a new one, since a scrape is over within milliseconds."""
_SECONDS = 10


def serve_metrics(registry: CollectorRegistry, host: str, port: int) -> int:
    """Answer scrapes from a thread until the process ends; returns the port. Raises OSError if it is taken."""
    family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    kind = type("_Server", (_Server,), {"address_family": family})
    server: Any = make_server(host, port, make_wsgi_app(registry), kind, handler_class=_Handler)
    Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    shown_on: int = server.server_port
    return shown_on


class _Handler(WSGIRequestHandler):
    timeout = _SECONDS

    def log_message(self, *arguments: object) -> None:
        """Nothing: scrapes are no events."""


class _Server(ThreadingWSGIServer):
    request_queue_size = 128  # of 5, a few strangers leave no room

    def __init__(self, *arguments: Any) -> None:
        self._open: dict[Any, None] = {}  # sockets, the oldest first
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own."""
        while len(self._open) >= MAX_CONNECTIONS:
            with suppress(OSError, RuntimeError, StopIteration):  # one that ends at this moment
                oldest = next(iter(self._open))
                self._open.pop(oldest, None)
                oldest.shutdown(socket.SHUT_RDWR)
        self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """A connection is over."""
        self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: who closes his connection before he is answered is no error of the server."""
