"""The HTTP port of one process: its socket, its TLS, and its end."""

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Any

from uvicorn.config import Config

from ..config.settings import ServerSettings
from ..rpc.arrivals import HEAD_SECONDS
from ..security.tls import Certificates
from .connection import MAX_HEAD_BYTES, Connections, connections_of

_BACKLOG = 1024


class WebListener:
    """Answers HTTP by an ASGI application, in the running event loop."""

    def __init__(
        self, app: Any, settings: ServerSettings, certificates: Certificates | None, *, max_connections: int
    ) -> None:
        """`certificates`: None for plaintext. max_connections: more are closed at once."""
        self._certificates = certificates
        self._connections = Connections(
            max_connections,
            max_age_seconds=settings.max_connection_age_seconds,
            # A call has a limit of its own, and its error as long again.
            stalled_seconds=2 * settings.stalled_write_seconds,
        )
        self._server: asyncio.Server | None = None
        self._config = Config(
            app,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,  # calls have records
            proxy_headers=False,
            timeout_keep_alive=round(settings.keepalive_seconds),
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        self._config.load()

    async def start(self, bound: socket.socket) -> int:
        """Take requests from a socket, which is closed in `stop`; returns its port."""
        context: ssl.SSLContext | None = None
        seconds: dict[str, Any] = {}
        if self._certificates is not None:
            context = self._certificates.ssl_context()
            seconds = {"ssl_handshake_timeout": HEAD_SECONDS, "ssl_shutdown_timeout": 1}
        self._server = await asyncio.get_running_loop().create_server(
            connections_of(self._config, self._connections), sock=bound, ssl=context, backlog=_BACKLOG, **seconds
        )
        port: int = bound.getsockname()[1]
        return port

    async def stop(self, grace: float) -> None:
        """Take no more requests, and end those that still run after `grace` seconds."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._connections.empty.wait()
        for connection in list(self._connections.connections):
            connection.abort()  # type: ignore[union-attr] # all are of our kind
