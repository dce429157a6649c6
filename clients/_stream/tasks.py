"""Several servers making one stream, a task for each: the asyncio client's side of `shards`."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from .._errors import SamplingError, closed_error
from .._retry import Retries, RetryPolicy
from .._types import ImageBatch
from .call import END_SECONDS, Connection, open_call
from .shards import Cursor, Shard, Shards


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
        async with self.changed:
            self.changed.notify_all()

    async def wait_for(self, condition: Callable[[], bool], seconds: float | None = None) -> None:
        """Wait until a condition holds, at most that long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self.changed:
                await self.changed.wait_for(condition)

    async def wait(self, seconds: float) -> None:
        """Wait that long, or until the client is closed."""
        await self.wait_for(lambda: self.is_closed, seconds)


@contextmanager
def typed_cancellation(lifetime: Lifetime, cursor: Cursor | None = None) -> Iterator[None]:
    """Raises SamplingError where closing the client, and nobody else, cancelled a call."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if not lifetime.is_closed or (task is not None and task.cancelling()):
            raise
        raise closed_error(None if cursor is None else cursor.next_index) from None


async def wait_for_end(call: Any) -> None:
    """Let a stream whose last image arrived end by itself, as the server's log has it, but not for ever."""
    with suppress(TimeoutError, grpc.RpcError):
        async with asyncio.timeout(END_SECONDS):  # asyncio.wait_for of Python 3.11 can lose a cancellation
            await call.code()


@dataclass(eq=False)
class ShardWorkers:
    """The tasks that make one stream."""

    connect: Callable[[], Sequence[Connection[grpc.aio.Channel]]]
    shards: Shards
    lifetime: Lifetime
    is_left: bool = field(default=False, init=False)

    async def batches(self, policy: RetryPolicy, timeout: float | None) -> AsyncGenerator[ImageBatch, None]:
        """The stream in order, within so many seconds. Raises a SamplingError."""
        connections = self.connect()
        retries = [Retries(connection.target, policy, timeout) for connection in connections]
        tasks = [asyncio.create_task(self._work(*pair)) for pair in zip(connections, retries, strict=True)]
        try:
            while (batch := await self._next()) is not None:
                yield batch
        finally:
            self.is_left = True
            for task in tasks if not self.shards.is_complete else ():
                task.cancel()  # else calls are about to end, as the servers' logs then have it
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _next(self) -> ImageBatch | None:
        await self.lifetime.wait_for(lambda: self.shards.has_next or self._is_over())
        batch = self.shards.pop()
        await self.lifetime.notify()
        return batch

    def _is_over(self) -> bool:
        return self.is_left or self.lifetime.is_closed or self.shards.is_ended

    async def _work(self, connection: Connection[grpc.aio.Channel], retries: Retries) -> None:
        try:
            while (shard := await self._take()) is not None:
                try:
                    await self._make(shard, connection, retries)
                except SamplingError as failure:
                    if not shard.cursor.is_complete:
                        await self._pass_on(shard, failure, retries)
        except Exception as error:  # whatever it is, the stream's reader gets it
            self.shards.give_up(connection.target, error)
            await self.lifetime.notify()

    async def _take(self) -> Shard | None:
        await self.lifetime.wait_for(lambda: self.shards.has_free or self._is_over())
        return None if self._is_over() else self.shards.take()

    async def _make(self, shard: Shard, connection: Connection[grpc.aio.Channel], retries: Retries) -> None:
        with typed_cancellation(self.lifetime, shard.cursor), open_call(connection, shard.cursor, retries) as call:
            async for response in call:
                self.shards.add(shard, response, connection.target)
                retries.reset()
                await self.lifetime.notify()
                if shard.cursor.is_complete:
                    await wait_for_end(call)
                    return
        shard.cursor.check_complete(connection.target)

    async def _pass_on(self, shard: Shard, failure: SamplingError, retries: Retries) -> None:
        """Leave the rest of a shard to whichever server is free first, and wait before the next try."""
        self.shards.give_back(shard)
        await self.lifetime.notify()
        if not self._is_over():
            await self.lifetime.wait_for(self._is_over, retries.wait_after(failure))
