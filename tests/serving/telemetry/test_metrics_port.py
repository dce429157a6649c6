"""The metrics port beside those who connect to it and ask nothing."""

import socket
import urllib.request
from contextlib import ExitStack, suppress

from prometheus_client import CollectorRegistry, Gauge

from bgan.serving.telemetry.metrics_port import MAX_CONNECTIONS, serve_metrics


def test_connections_that_ask_nothing_make_room():
    registry = CollectorRegistry()
    Gauge("something", "", registry=registry).set(7)
    port = serve_metrics(registry, "127.0.0.1", 0)
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            for _ in range(3 * MAX_CONNECTIONS)
        ]
        for connection in silent[: 2 * MAX_CONNECTIONS]:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nX: ")  # a header that does not end
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            assert b"something 7.0" in answer.read()
        for connection in silent[: 2 * MAX_CONNECTIONS]:  # the oldest were closed
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""
