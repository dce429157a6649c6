"""Requests on their way in: how many may be unfinished at once, and for how long."""

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from ..errors import RequestLateError
from .turns import Turns

MAX_ARRIVING = 16
"""Requests of a process that may be unfinished at once; each takes what a message may have, 4 MiB if not set."""
_MAX_SECONDS = 20.0
_SECONDS_IF_OTHERS_WAIT = 1.0


@dataclass(eq=False, slots=True)
class _Arriving:
    connection: Hashable
    limit: asyncio.Timeout
    since: float


class Arrivals:
    """Takes the requests of calls in, after their callers were let in.

    gRPC gives a sender room for a whole message as soon as it is read. So a message is not read before it has one
    of `MAX_ARRIVING` slots. Connections get slots in turn; a request that holds one for a second gives it up where
    others wait, first those of the connection that has the most.
    """

    def __init__(self, max_seconds: float) -> None:
        self._seconds = min(max_seconds, _MAX_SECONDS)
        self._arriving: list[_Arriving] = []  # by age
        self._waiting: Turns[asyncio.Future[None]] = Turns()
        self._free = MAX_ARRIVING
        self._timer: asyncio.TimerHandle | None = None

    async def receive(self, context: Any, connection: Hashable) -> Any:
        """The next message of a call, or grpc.aio.EOF. Raises RequestLateError if it does not arrive in time."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._seconds) as limit:
                await self._acquire(connection)
                arriving = _Arriving(connection, limit, loop.time())
                self._arriving.append(arriving)
                try:
                    return await context.read()
                finally:
                    self._arriving.remove(arriving)
                    self._release()
        except TimeoutError:
            raise RequestLateError(self._seconds) from None

    async def _acquire(self, connection: Hashable) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put((connection,), turn)
        self._end_late()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()  # the slot came at the same moment
            raise

    def _release(self) -> None:
        while self._waiting:
            turn = self._waiting.take()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _end_late(self) -> None:
        """End the request that is to give its slot up, or look again when there is one."""
        if self._timer is not None or not self._waiting:
            return
        loop = asyncio.get_running_loop()
        late = [each for each in self._arriving if each.since <= loop.time() - _SECONDS_IF_OTHERS_WAIT]
        held = [each.connection for each in self._arriving]
        if late:
            max(late, key=lambda each: held.count(each.connection)).limit.reschedule(loop.time())
        self._timer = loop.call_later(_SECONDS_IF_OTHERS_WAIT / MAX_ARRIVING, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self._end_late()
