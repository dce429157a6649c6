"""Several servers making one stream, a thread for each: the blocking client's side of `shards`."""

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from .._errors import SamplingError
from .._retry import Retries, RetryPolicy
from .._types import ImageBatch
from .call import Connection, cancel, open_call, wait_for_end
from .shards import Shard, Shards


@dataclass(kw_only=True, slots=True)
class Lifetime:
    """Whether a client is closed, and what wakes its streams when it is."""

    is_closed: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def close(self) -> None:
        """Wake whatever waits."""
        with self.changed:
            self.is_closed = True
            self.changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait that long, or until the client is closed."""
        with self.changed:
            self.changed.wait_for(lambda: self.is_closed, seconds)


@dataclass(eq=False)
class ShardWorkers:
    """The threads that make one stream."""

    connect: Callable[[], Sequence[Connection[grpc.Channel]]]
    shards: Shards
    lifetime: Lifetime
    calls: set[Any] = field(default_factory=set, init=False)
    is_left: bool = field(default=False, init=False)

    def batches(self, policy: RetryPolicy, timeout: float | None) -> Generator[ImageBatch, None, None]:
        """The stream in order, within so many seconds. Raises a SamplingError."""
        connections = self.connect()
        retries = [Retries(connection.target, policy, timeout) for connection in connections]
        pairs = zip(connections, retries, strict=True)
        threads = [threading.Thread(target=self._work, args=pair, daemon=True) for pair in pairs]
        for thread in threads:
            thread.start()
        try:
            while (batch := self._next()) is not None:
                yield batch
        finally:
            if not self.shards.is_complete:  # else calls are about to end, as the servers' logs then have it
                self._leave()
            for thread in threads:
                thread.join()

    def _next(self) -> ImageBatch | None:
        with self.lifetime.changed:
            self.lifetime.changed.wait_for(lambda: self.shards.has_next or self._is_over())
            self.lifetime.changed.notify_all()
            return self.shards.pop()

    def _leave(self) -> None:
        with self.lifetime.changed:
            self.is_left = True
            self.lifetime.changed.notify_all()
            calls = list(self.calls)
        for call in calls:
            cancel(call)

    def _is_over(self) -> bool:
        return self.is_left or self.lifetime.is_closed or self.shards.is_ended

    def _work(self, connection: Connection[grpc.Channel], retries: Retries) -> None:
        try:
            while (shard := self._take()) is not None:
                try:
                    self._make(shard, connection, retries)
                except SamplingError as failure:
                    if not shard.cursor.is_complete:
                        self._pass_on(shard, failure, retries)
        except Exception as error:  # whatever it is, the stream's reader gets it
            with self.lifetime.changed:
                self.shards.give_up(connection.target, error)
                self.lifetime.changed.notify_all()

    def _take(self) -> Shard | None:
        with self.lifetime.changed:
            self.lifetime.changed.wait_for(lambda: self.shards.has_free or self._is_over())
            return None if self._is_over() else self.shards.take()

    def _make(self, shard: Shard, connection: Connection[grpc.Channel], retries: Retries) -> None:
        with open_call(connection, shard.cursor, retries) as call:
            with self.lifetime.changed:
                if self._is_over():
                    return
                self.calls.add(call)
            try:
                for response in call:
                    with self.lifetime.changed:
                        self.shards.add(shard, response, connection.target)
                        self.lifetime.changed.notify_all()
                    retries.reset()
                    if shard.cursor.is_complete:
                        wait_for_end(call)
                        return
                    if self.is_left:
                        return
                shard.cursor.check_complete(connection.target)
            finally:
                self.calls.discard(call)

    def _pass_on(self, shard: Shard, failure: SamplingError, retries: Retries) -> None:
        """Leave the rest of a shard to whichever server is free first, and wait before the next try."""
        with self.lifetime.changed:
            self.shards.give_back(shard)
            self.lifetime.changed.notify_all()
            if not self._is_over():
                self.lifetime.changed.wait_for(self._is_over, retries.wait_after(failure))
