"""Several servers making one stream, a task for each: the asyncio client's side of `_pieces`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import grpc

from bgan.v1 import sampling_pb2_grpc

from .._errors import SamplingError
from .._retry import Deadline, Retries, RetryPolicy
from .._types import ImageBatch
from .call import closed_error, open_call
from .cursor import Cursor
from .shards import Piece, Pieces


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A server and the connection to it."""

    target: str
    channel: grpc.aio.Channel
    stub: sampling_pb2_grpc.SamplingServiceAsyncStub


@dataclass(kw_only=True, slots=True)
class Lifetime:
    """Whether a client is closed, and what wakes its streams when it is."""

    is_closed: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def close(self) -> None:
        """Wake whatever waits."""
        self.is_closed = True
        await self.notify()

    async def notify(self) -> None:
        """Let all who wait look again."""
        async with self.changed:
            self.changed.notify_all()

    async def wait(self, seconds: float) -> None:
        """Wait that long, or until the client is closed."""
        await self.wait_for(lambda: self.is_closed, seconds)

    async def wait_for(self, condition: Callable[[], bool], seconds: float | None = None) -> None:
        """Wait until a condition holds, at most that long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self.changed:
                await self.changed.wait_for(condition)


@contextmanager
def typed_cancellation(lifetime: Lifetime, cursor: Cursor) -> Iterator[None]:
    """Raises SamplingError where closing the client, and nobody else, cancelled a call."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if not lifetime.is_closed or (task is not None and task.cancelling()):
            raise
        raise closed_error(cursor.next_index) from None


class Crew:
    """The tasks that make one stream."""

    def __init__(
        self,
        servers: Sequence[Server],
        pieces: Pieces,
        *,
        retry: RetryPolicy,
        deadline: Deadline,
        lifetime: Lifetime,
    ) -> None:
        self._servers = servers
        self._pieces = pieces
        self._retry = retry
        self._deadline = deadline
        self._lifetime = lifetime

    async def batches(self) -> AsyncGenerator[ImageBatch, None]:
        """The stream in order. Raises a SamplingError."""
        tasks = [asyncio.create_task(self._work(server)) for server in self._servers]
        try:
            while (batch := await self._next()) is not None:
                yield batch
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _next(self) -> ImageBatch | None:
        await self._lifetime.wait_for(lambda: self._pieces.has_next or self._is_over())
        if self._pieces.has_next:
            batch = self._pieces.pop()
            await self._lifetime.notify()
            return batch
        self._pieces.raise_error()
        if not self._pieces.is_ended:
            raise closed_error(self._pieces.next_index)
        return None

    def _is_over(self) -> bool:
        return self._lifetime.is_closed or self._pieces.is_ended

    async def _work(self, server: Server) -> None:
        retries = Retries(server.target, self._retry, self._deadline)
        try:
            while (piece := await self._take()) is not None:
                try:
                    await self._make(piece, server, retries)
                except SamplingError as failure:
                    if not piece.cursor.is_complete:
                        await self._pass_on(piece, failure, retries)
        except Exception as error:  # whatever it is, whoever reads the stream gets it
            self._pieces.give_up(server.target, error)
            await self._lifetime.notify()

    async def _take(self) -> Piece | None:
        await self._lifetime.wait_for(lambda: self._pieces.has_free or self._is_over())
        return None if self._is_over() else self._pieces.take()

    async def _make(self, piece: Piece, server: Server, retries: Retries) -> None:
        with (
            typed_cancellation(self._lifetime, piece.cursor),
            open_call(server.stub, server.target, piece.cursor, self._deadline) as call,
        ):
            async for response in call:
                self._pieces.add(piece, response, server.target)
                retries.reset()
                await self._lifetime.notify()
        piece.cursor.check_complete(server.target)

    async def _pass_on(self, piece: Piece, failure: SamplingError, retries: Retries) -> None:
        """Leave what is left of a piece to whoever is free first, and wait before the next try."""
        self._pieces.give_back(piece)
        await self._lifetime.notify()
        if not self._is_over():
            await self._lifetime.wait_for(self._is_over, retries.wait_after(failure))
