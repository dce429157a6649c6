"""A request of HTTP as the services see a call: what `grpc.aio.ServicerContext` is to them; and its answer."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import grpc
from grpc import StatusCode
from starlette.types import Receive, Scope, Send

from ..errors import InvalidRequestError, StalledReaderError
from ..rpc.guard import CallGuard
from .connection import Connection
from .problems import MEDIA_TYPE, OIP_MEDIA_TYPE, problem_of

MAX_FIELDS = 2000
"""In the query of an address."""
_Encode = Callable[[bytes], Awaitable[bytes]]


@dataclass(slots=True)
class Reply:
    """How a call that is no error is answered."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    length: int | None = None
    """Bytes of the body; None: as they come."""
    encode: _Encode | None = None
    """What the body has for each message that the method writes."""


class HttpCall:
    """One request. A method reads it, writes messages and returns bytes, or aborts, as with gRPC."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, endpoint: "Endpoint") -> None:
        self.reply = Reply()
        """To be set before something is written."""
        self.method: str = scope["method"]
        self.address: str = scope["path"]
        self.path: Mapping[str, str] = scope.get("path_params", {})
        """The parts of the path that the route names."""
        self.connection: Connection = scope["state"]["connection"]
        self.receive = receive
        self._scope, self._send, self._endpoint = scope, send, endpoint
        self._every: dict[str, str] = {}  # headers of each answer
        self._has_begun = self._is_over = False
        self._code = StatusCode.OK
        self._status: HTTPStatus | None = None  # of an error; None: that of its code

    def header(self, name: str) -> str | None:
        """The value of a header, whose name is in small letters; one list of several lines (RFC 9110, 5.3)."""
        wanted = name.encode()
        values = [value.decode("latin-1") for key, value in self._scope["headers"] if key == wanted]
        return ", ".join(values) if values else None

    def has_tag(self, tag: str) -> bool:
        """Whether its sender has the answer with an entity tag already."""
        tags = (self.header("if-none-match") or "").strip()
        return tags == "*" or tag in [each.strip().removeprefix("W/") for each in tags.split(",")]

    def refusal(self, status: HTTPStatus, field: str, text: str) -> InvalidRequestError:
        """The error of a part of the request that has a status of its own."""
        self._status = status
        return InvalidRequestError({field: text})

    def query(self) -> dict[str, list[str]]:
        """The fields of the query. Raises InvalidRequestError if there are too many."""
        text = self._scope["query_string"].decode("latin-1")
        try:
            return parse_qs(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
        except ValueError:
            raise InvalidRequestError({"query": f"has more than {MAX_FIELDS} fields"}) from None

    def peer(self) -> str:
        """The other side, as gRPC writes it."""
        return self.connection.peer

    def invocation_metadata(self) -> list[tuple[str, str]]:
        """The headers."""
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._scope["headers"]]

    def auth_context(self) -> dict[str, list[bytes]]:
        """The client's certificates, by gRPC's names."""
        own, others = self.connection.certificates()
        return {"x509_pem_cert": own, "x509_pem_cert_chain": others}

    def time_remaining(self) -> float | None:
        """None: HTTP has no deadlines; who no longer waits closes the connection."""
        return None

    def set_trailing_metadata(self, metadata: Any) -> None:
        """Headers of the answer, whatever it will be."""
        self._every |= dict(metadata)

    async def send_initial_metadata(self, metadata: Any) -> None:
        """Nothing: the head goes with the first bytes of the body."""

    def code(self) -> StatusCode:
        """What the call was aborted with."""
        return self._code

    async def read(self) -> Any:
        """What the endpoint makes of it. Raises InvalidRequestError, or NotImplementedError for another verb."""
        if self.method not in self._endpoint.verbs:
            self.set_trailing_metadata((("allow", ", ".join(self._endpoint.verbs)),))
            raise NotImplementedError
        found = self._endpoint.read(self)
        return await found if isinstance(found, Awaitable) else found

    async def write(self, message: bytes) -> None:
        """Send what the reply's body has for a message."""
        assert self.reply.encode is not None  # of a method that writes
        await self.write_body(await self.reply.encode(message))

    async def write_body(self, data: bytes, *, is_last: bool = False) -> None:
        """Send bytes of the body, and wait until the system has taken them."""
        if not self._has_begun:
            self._has_begun = True
            length = self.reply.length
            if length is None and is_last and data:  # else there may be more of it than this answer has
                length = len(data)
            own = {} if length is None else {"content-length": str(length)}
            headers = [(key.encode(), value.encode()) for key, value in {**self.reply.headers, **own}.items()]
            await self._begin(self.reply.status, headers)
        await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})
        await self.connection.flow.drain()

    async def write_in_time(self, data: bytes, seconds: float) -> None:
        """Send bytes of the body after the call has given its slot back. Raises StalledReaderError."""
        try:
            async with asyncio.timeout(seconds):
                await self.write_body(data)
        except TimeoutError:
            raise StalledReaderError from None

    async def finish(self, last: bytes | None) -> None:
        """Send the last bytes of the body; None: the call was ended otherwise."""
        if last is None or self._is_over:
            self.connection.abort()
            return
        await self.write_body(last, is_last=True)

    async def abort(self, code: StatusCode, details: str = "", trailing_metadata: Any = ()) -> Any:
        """End the call with an error, or the connection where the answer has begun. Raises AbortError."""
        self._code, self._is_over = code, True
        if self._has_begun:
            self.connection.abort()
        else:
            self._has_begun = True
            media_type = OIP_MEDIA_TYPE if self.address.startswith("/v2") else MEDIA_TYPE
            status, body, headers = problem_of(
                code, details, trailing_metadata, status=self._status, media_type=media_type
            )
            await self._begin(status, headers)
            await self._send({"type": "http.response.body", "body": body})
            await self.connection.flow.drain()
        raise grpc.aio.AbortError

    async def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        names = {name for name, _ in headers}
        own = [(key.encode(), value.encode()) for key, value in self._every.items()]
        headers = headers + [each for each in own if each[0] not in names]
        # One with two lengths may be meant to smuggle another in: nothing after it is read (RFC 9112, 6.1).
        has_two_lengths = self.header("content-length") and self.header("transfer-encoding")
        if self.connection.is_old or has_two_lengths:
            headers.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})


class Endpoint:
    """An address's ASGI application: a guarded method, called with what is read from the request."""

    def __init__(
        self,
        guard: CallGuard,
        route: tuple[str, str],
        method: Callable[[Any, HttpCall], Awaitable[Any]],
        read: Callable[[HttpCall], Any] = lambda call: call,
        *,
        is_open: bool = False,
    ) -> None:
        """`route`: a verb and a path, as records call it. is_open: it needs no token.

        The method returns the last bytes of the body. read: what makes its argument, a coroutine if it waits.
        """
        self.verbs = ("GET", "HEAD") if route[0] == "GET" else route[:1]
        self.read = read
        self._guarded = guard.guard(method, " ".join(route), is_open=is_open)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        call = HttpCall(scope, receive, send, self)
        task = asyncio.current_task()
        assert task is not None  # uvicorn answers each request in one
        call.connection.calls.add(task)
        try:
            await call.finish(await self._guarded(None, call))
        except grpc.aio.AbortError:
            pass
        except asyncio.CancelledError:  # the other side is gone, takes nothing, or the server ends
            call.connection.abort()
        finally:
            call.connection.calls.discard(task)
