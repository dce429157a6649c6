"""Every method of every service that a server has, as its reflection says, called with bytes as they are."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from .access import Access
from .http2 import PREFACE, frame

ENOUGH_ANSWERS = 2
_ANSWER_SECONDS = 120
_QUIET_SECONDS = 0.02


@dataclass(frozen=True)
class Method:
    """A method of a service."""

    path: str
    """/package.Service/Name."""
    request: Any
    """The descriptor of its requests; None: nothing is known of them."""
    takes_stream: bool = False
    answers_stream: bool = False

    @property
    def kind(self) -> str:
        """What gRPC calls it: the name of the channel's method that makes the call."""
        return "_".join("stream" if streams else "unary" for streams in (self.takes_stream, self.answers_stream))


UNKNOWN_METHODS = [
    Method(path, None)
    for path in ("/bgan.v1.SamplingService/Nothing", "/no.such.Service/Method", "/", "//", "/a/b/c", "/%00/%ff")
]


def methods_of(access: Access) -> list[Method]:
    """The methods of a running server, by path, in the same order each time."""
    with access.channel() as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        services = [pool.FindServiceByName(name) for name in sorted(database.get_services())]
        return [
            Method(
                f"/{service.full_name}/{method.name}",
                method.input_type,
                method.client_streaming,
                method.server_streaming,
            )
            for service in services
            for method in service.methods
        ]


async def send(
    channel: grpc.aio.Channel, method: Method, messages: list[bytes], metadata: list[tuple[str, str]] | None = None
) -> grpc.StatusCode:
    """Call a method with these bytes; returns the status it ended with, OK where it went on answering.

    A call that takes one message gets the first; one that takes several gets the next with each answer, since
    gRPC's client calls it INTERNAL when a call ends while it sends. DEADLINE_EXCEEDED: no answer for two minutes.
    """
    call = getattr(channel, method.kind)(method.path, request_serializer=None, response_deserializer=None)
    if method.takes_stream:
        started = call(timeout=_ANSWER_SECONDS, metadata=metadata)
        conversation = _converse(started, messages)
    else:
        started = call(messages[0], timeout=_ANSWER_SECONDS, metadata=metadata)
        conversation = _read(started) if method.answers_stream else started
    try:
        await conversation
    except grpc.aio.AioRpcError as error:
        return error.code()
    finally:
        started.cancel()
    return grpc.StatusCode.OK


async def _converse(call: Any, messages: list[bytes]) -> None:
    for message in messages:
        await call.write(message)
        if await call.read() is grpc.aio.EOF:
            return
    await call.done_writing()
    await _read(call)


async def _read(call: Any) -> None:
    """Answers until there are enough of them, or no more come."""
    for place in range(ENOUGH_ANSWERS):
        reading = asyncio.ensure_future(call.read())
        await asyncio.wait({reading}, timeout=_QUIET_SECONDS if place else None)
        if not reading.done():
            call.cancel()
            with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                await reading
            return
        if reading.result() is grpc.aio.EOF:
            return


def send_garbage(access: Access, rng: Any) -> None:
    """Connect and send what is no HTTP/2, or frames that mean nothing, and leave."""
    with suppress(OSError), access.connect() as connection:
        if rng.random() < 0.5:
            connection.sendall(rng.randbytes(rng.choice((1, 9, 100, 5000))))
        else:
            connection.sendall(PREFACE + b"".join(_frame(rng) for _ in range(rng.randint(1, 20))))
        if rng.random() < 0.5:
            connection.settimeout(0.05)
            while connection.recv(4096):
                pass


def _frame(rng: Any) -> bytes:
    """A frame of HTTP/2: a length, which may lie, a type, flags, a stream, and bytes."""
    payload = rng.randbytes(rng.choice((0, 1, 4, 8, 60)))
    length = len(payload) if rng.random() < 0.9 else rng.getrandbits(24)
    stream = rng.choice((0, 1, 3, rng.getrandbits(32)))
    return frame(rng.randrange(12), rng.getrandbits(8), stream, payload, length)
