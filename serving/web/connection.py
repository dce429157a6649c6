"""One connection of HTTP, and what is allowed on it: uvicorn has no bound on the time of a request's head."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from ..rpc.arrivals import HEAD_SECONDS
from ..rpc.peers import peer_name
from .problems import problem

MAX_HEAD_BYTES = 16 * 1024
"""Of a request's line and its headers."""
logging.getLogger("uvicorn.error").addFilter(lambda record: record.levelno >= logging.ERROR)  # strangers' requests


class Connections(ServerState):
    """The connections of one process."""

    def __init__(self, most: int, *, max_age_seconds: float, stalled_seconds: float) -> None:
        """`most`: more are closed. max_age_seconds: 0 for any. stalled_seconds: how long one may take nothing."""
        super().__init__()
        self.most = most
        self.max_age_seconds = max_age_seconds
        self.stalled_seconds = stalled_seconds
        self.empty = asyncio.Event()
        """Set while there is none."""
        self.empty.set()

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Of every answer that begins now."""
        return [(b"date", _date(int(time.time()))), (b"x-content-type-options", b"nosniff")]

    @default_headers.setter
    def default_headers(self, headers: object) -> None:
        """Nothing: uvicorn's own server would set them once a second."""


@lru_cache(maxsize=1)
def _date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode()


class Connection(H11Protocol):
    """Ends requests that arrive too slowly, and the calls of those who go; writes nothing ahead of its reader."""

    server_state: Connections

    def __init__(self, config: Config, state: Connections) -> None:
        super().__init__(config, state, {})
        self.app_state["connection"] = self
        self.calls: set[asyncio.Task[Any]] = set()
        """Those that it waits for."""
        self._late: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._began = time.monotonic()

    @property
    def peer(self) -> str:
        """The other side, as gRPC writes it."""
        return "unknown" if self.client is None else peer_name(*self.client)

    @property
    def is_old(self) -> bool:
        """Whether it is to end with its next answer."""
        age = self.server_state.max_age_seconds
        return age > 0 and time.monotonic() - self._began > age

    def certificates(self) -> tuple[list[bytes], list[bytes]]:
        """The client's certificate, if it has one, and those that came with it, as PEM."""
        tls: Any = self.transport.get_extra_info("ssl_object")
        own = None if tls is None else tls.getpeercert(True)
        if own is None:
            return [], []
        if hasattr(tls, "get_unverified_chain"):  # from Python 3.13 on
            chain = tls.get_unverified_chain() or []
        else:
            chain = [each.public_bytes(2) for each in tls._sslobj.get_unverified_chain() or []]  # as DER
        own_pem, *others = [ssl.DER_cert_to_PEM_cert(each).encode() for each in chain or [own]]
        return [own_pem], others

    def connection_made(self, transport: Any) -> None:
        """A connection was accepted, its TLS included."""
        super().connection_made(transport)
        self.server_state.empty.clear()
        # Nothing is kept here for a reader beyond one message: `drain` returns once the system has all of it.
        transport.set_write_buffer_limits(high=1, low=0)  # with 0 and 0 uvloop's TLS pauses for good
        if len(self.connections) > self.server_state.most:
            self.abort()
        self._watch_request(is_new=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended: nobody waits for its calls."""
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)
        for task in self.calls:
            task.cancel()
        if not self.connections:
            self.server_state.empty.set()

    def data_received(self, data: bytes) -> None:
        """Bytes of one request or of several."""
        super().data_received(data)
        self._watch_request()

    def pause_writing(self) -> None:
        """What was written is not taken: end the connection if that goes on, whatever was answered."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.server_state.stalled_seconds, self.abort)

    def resume_writing(self) -> None:
        """All of it was."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def on_response_complete(self) -> None:
        """A request was answered; the next one may have arrived before."""
        super().on_response_complete()
        self._watch_request()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request of HTTP, and end the connection."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE) or self.calls:
            self.abort()  # another request is being answered
            return
        body, own = problem(400, f"{msg} Send HTTP/1.1, with a head of at most {MAX_HEAD_BYTES} bytes.")
        headers = [*self.server_state.default_headers, *own, (b"connection", b"close")]
        events: list[Any] = [
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def shutdown(self) -> None:
        """End it with its answer, or now."""
        try:
            super().shutdown()
        except h11.LocalProtocolError:  # it is about to end
            self.transport.close()

    def abort(self) -> None:
        """End it at once: what was begun is not finished, which its reader can tell."""
        if self.cycle is not None:
            self.cycle.disconnected = True
        self.transport.abort()

    def _watch_request(self, *, is_new: bool = False) -> None:
        """Have a time for what is to arrive, and nobody reads: a head, or what follows an answer."""
        state = self.conn.their_state
        is_head = state is h11.IDLE and (is_new or bool(self.conn.trailing_data[0]))
        is_rest = state is h11.SEND_BODY and self.cycle is not None and self.cycle.response_complete
        if not (is_head or is_rest):
            self._stop_waiting()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self.abort)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def connections_of(config: Config, state: Connections) -> Callable[[], Connection]:
    """Makes a `Connection` for each that is accepted."""
    return lambda: Connection(config, state)
