"""Several servers making one stream, a thread for each: the blocking client's side of `_pieces`."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from bgan.v1 import sampling_pb2_grpc

from .._errors import SamplingError
from .._retry import Deadline, Retries, RetryPolicy
from .._types import ImageBatch
from .call import closed_error, open_call
from .shards import Piece, Pieces


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A server and the connection to it."""

    target: str
    channel: grpc.Channel
    stub: sampling_pb2_grpc.SamplingServiceStub


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


class Crew:
    """The threads that make one stream."""

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
        self._changed = lifetime.changed
        self._calls: set[Any] = set()
        self._is_left = False

    def batches(self) -> Generator[ImageBatch, None, None]:
        """The stream in order. Raises a SamplingError."""
        threads = [threading.Thread(target=self._work, args=(server,), daemon=True) for server in self._servers]
        for thread in threads:
            thread.start()
        try:
            while (batch := self._next()) is not None:
                yield batch
        finally:
            self._leave()
            for thread in threads:
                thread.join()

    def _next(self) -> ImageBatch | None:
        with self._changed:
            self._changed.wait_for(lambda: self._pieces.has_next or self._is_over())
            if self._pieces.has_next:
                self._changed.notify_all()
                return self._pieces.pop()
            self._pieces.raise_error()
            if not self._pieces.is_ended:
                raise closed_error(self._pieces.next_index)
            return None

    def _leave(self) -> None:
        with self._changed:
            self._is_left = True
            self._changed.notify_all()
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    def _is_over(self) -> bool:
        return self._is_left or self._lifetime.is_closed or self._pieces.is_ended

    def _work(self, server: Server) -> None:
        retries = Retries(server.target, self._retry, self._deadline)
        try:
            while (piece := self._take()) is not None:
                try:
                    self._make(piece, server, retries)
                except SamplingError as failure:
                    if not piece.cursor.is_complete:
                        self._pass_on(piece, failure, retries)
        except Exception as error:  # whatever it is, whoever reads the stream gets it
            with self._changed:
                self._pieces.give_up(server.target, error)
                self._changed.notify_all()

    def _take(self) -> Piece | None:
        with self._changed:
            self._changed.wait_for(lambda: self._pieces.has_free or self._is_over())
            return None if self._is_over() else self._pieces.take()

    def _make(self, piece: Piece, server: Server, retries: Retries) -> None:
        with open_call(server.stub, server.target, piece.cursor, self._deadline) as call:
            with self._changed:
                if self._is_over():
                    return
                self._calls.add(call)
            try:
                for response in call:
                    with self._changed:
                        self._pieces.add(piece, response, server.target)
                        self._changed.notify_all()
                    retries.reset()
                piece.cursor.check_complete(server.target)
            finally:
                self._calls.discard(call)

    def _pass_on(self, piece: Piece, failure: SamplingError, retries: Retries) -> None:
        """Leave what is left of a piece to whoever is free first, and wait before the next try."""
        with self._changed:
            self._pieces.give_back(piece)
            self._changed.notify_all()
            if self._is_over():
                return
            seconds = retries.wait_after(failure)
            self._changed.wait_for(self._is_over, seconds)
