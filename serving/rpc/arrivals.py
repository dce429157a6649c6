"""Requests on their way in: how many may be unfinished at once, and for how long."""

import asyncio
import time
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from ..config.settings import ServerSettings
from ..errors import RequestLateError
from .turns import Turns, wake_next

MAX_ARRIVING = 16
"""Requests of a process that may be unfinished at once; each takes what a message may have, 4 MiB if not set."""
HEAD_SECONDS = 10
"""For what comes before a request: TLS, the first frames of HTTP/2, or all headers of HTTP/1.1."""
_MIN_BYTES = 4 * 1024 * 1024  # gRPC's own limit
_MAX_SECONDS = 20.0
_SECONDS_IF_OTHERS_WAIT = 1.0
_LOOK_SECONDS = _SECONDS_IF_OTHERS_WAIT / MAX_ARRIVING


def max_request_bytes(settings: ServerSettings) -> int:
    """How large a request may be: as an answer, and gRPC's own limit is never lowered."""
    return max(settings.max_message_bytes, _MIN_BYTES)


@dataclass(eq=False, slots=True)
class _Arriving:
    connection: Hashable
    task: asyncio.Task[Any]
    since: float
    is_late: bool = False


class Arrivals:
    """Takes the requests of calls in, after their callers were let in.

    gRPC gives a sender room for a whole message as soon as it is read. So a message is not read before it has one
    of `MAX_ARRIVING` slots. Connections get slots in turn; a request that holds one for a second gives it up where
    others wait, first those of the connection that has the most.
    """

    def __init__(self, max_seconds: float) -> None:
        self._seconds = min(max_seconds, _MAX_SECONDS)
        self._arriving: list[_Arriving] = []  # those with a slot, by age
        self._waiting: Turns[asyncio.Future[None]] = Turns()
        self._free = MAX_ARRIVING
        self._timer: asyncio.TimerHandle | None = None  # one for all: a timer a call would cost each call more

    async def receive(self, context: Any, connection: Hashable) -> Any:
        """The next message of a call, or grpc.aio.EOF. Raises RequestLateError if it does not arrive in time."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(connection)
        task = asyncio.current_task()
        assert task is not None  # calls are answered in tasks
        arriving = _Arriving(connection, task, time.monotonic())
        self._arriving.append(arriving)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)
        try:
            return await context.read()
        except asyncio.CancelledError:
            if not arriving.is_late:
                raise
            task.uncancel()
            raise RequestLateError(self._seconds) from None
        finally:
            self._arriving.remove(arriving)
            self._release()

    async def _wait(self, connection: Hashable) -> None:
        """Wait for a slot, no longer than a request may take."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put((connection,), turn)
        try:
            async with asyncio.timeout(self._seconds):
                await turn
        except asyncio.CancelledError:
            self._pass_on(turn)
            raise
        except TimeoutError:
            self._pass_on(turn)
            raise RequestLateError(self._seconds) from None

    def _pass_on(self, turn: asyncio.Future[None]) -> None:
        """Give back the slot that came at the moment at which nobody waited for it any more."""
        if turn.done() and not turn.cancelled():
            self._release()

    def _release(self) -> None:
        if not wake_next(self._waiting):
            self._free += 1

    def _look(self) -> None:
        """End the requests that took too long, or one that is to give its slot up; look again later."""
        now = time.monotonic()
        late = [each for each in self._arriving if each.since <= now - self._seconds]
        if self._waiting and not late:
            held = [each.connection for each in self._arriving]
            slow = [each for each in self._arriving if each.since <= now - _SECONDS_IF_OTHERS_WAIT]
            late = [max(slow, key=lambda each: held.count(each.connection))] if slow else []
        for each in late:
            if not each.is_late:
                each.is_late = True
                each.task.cancel()
        looks_again = self._arriving or self._waiting
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look) if looks_again else None
