"""Which calls may run: so many at once, so many of one caller, and so many that wait for a slot."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Self

from ..call_context import CallContext
from ..config.settings import ServerSettings
from ..errors import NotReadyError, OverloadedError, StalledReaderError
from ..security.auth import caller
from ..telemetry.calls import current_call
from ..telemetry.metrics import NO_METRICS, Metrics
from .call_end import at_end
from .peers import address_of
from .turns import Turns, wake_next

OTHER_CALLS = 64
"""Calls of an address that are open beside streams and inferences: health, reflection, lists of models."""
_FEW_BYTES = 64 * 1024  # of a last message, which waits for its reader without a slot


class Admission:
    """The slots for calls. A call that finds none waits for one in turn, within its deadline, or is refused."""

    def __init__(self, settings: ServerSettings, metrics: Metrics = NO_METRICS) -> None:
        self.running: set[Call] = set()
        self.metrics = metrics
        self._used: set[str] = set()
        self._unread: set[str] = set()
        self._ending: set[Ending] = set()
        self._waiting: Turns[asyncio.Future[None]] = Turns()  # calls without a slot, by caller
        self._settings = settings
        self._slot_count = 0
        self._by_caller: dict[str, int] = {}
        self._is_closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def acquire(self, caller: str) -> None:
        """Take a slot for a call, or wait for one. Raises OverloadedError, and NotReadyError after `close`."""
        self._check(caller)
        self._by_caller[caller] = self._by_caller.get(caller, 0) + 1
        if self._slot_count < self._settings.max_streams:
            self._slot_count += 1
            self._idle.clear()
            return
        try:
            await self._wait(caller)
        except BaseException:
            self._leave(caller)
            raise

    def release(self, caller: str) -> None:
        """Give a slot back; callers that wait get slots in turn, each for its call that has waited longest."""
        self._leave(caller)
        self._hand_over()

    def close(self) -> None:
        """Refuse the calls that wait, and all new ones: the server is stopping."""
        self._is_closed = True
        while self._waiting:
            future = self._waiting.take()
            if not future.done():
                future.set_exception(_stopping())

    async def wait_until_idle(self) -> None:
        """Return once no call is running, nor its end on its way."""
        while self._slot_count or self._ending:  # one whose slot is given back may still have to be sent
            await self._idle.wait()

    def note_ending(self, task: asyncio.Task[Any], connection: str) -> "Ending":
        """The task of a call has nothing left to do but to let gRPC send its end, which a reader may not take."""
        ending = Ending(task, connection, time.monotonic())
        self._ending.add(ending)
        self._idle.clear()
        at_end(lambda: self._note_ended(ending))
        return ending

    def _note_ended(self, ending: "Ending") -> None:
        self._ending.discard(ending)
        self._note_idle()

    def _note_idle(self) -> None:
        if not self._slot_count and not self._ending:
            self._idle.set()

    def end_stalled(self) -> None:
        """End the calls whose readers have taken nothing for too long."""
        latest = time.monotonic() - self._settings.stalled_write_seconds
        for call in self.running:
            if call.writing_since is not None and call.writing_since < latest:
                call.end_as_stalled()
        unread = {ending.connection for ending in self._ending if ending.since < latest}
        for ending in self._ending:
            if ending.connection in unread and not ending.is_stalled:
                ending.is_stalled = True
                ending.task.cancel()
        self._unread |= unread

    def take_connections(self) -> tuple[set[str], set[str]]:
        """Connections on which calls were let in, and those that take no answers, since this was last asked."""
        used, self._used = self._used, set()
        unread, self._unread = self._unread, set()
        return used, unread

    def note_unread(self, connection: str) -> None:
        """A call's end was not taken either: what it was sent is in memory until its connection ends."""
        self._unread.add(connection)

    def note_used(self, connection: str) -> None:
        """A call on this connection was let in."""
        self._used.add(connection)

    def _check(self, caller: str) -> None:
        settings = self._settings
        if self._is_closed:
            raise _stopping()
        if self._by_caller.get(caller, 0) >= settings.max_streams_per_caller:
            raise _overloaded(
                f"{settings.max_streams_per_caller} calls of this caller are open, as many as one may have"
            )
        if self._slot_count >= settings.max_streams and len(self._waiting) >= settings.max_queued_calls:
            counts = f"{self._slot_count} calls are running and {len(self._waiting)} waiting"
            raise _overloaded(f"{counts}, as many as this server takes")

    async def _wait(self, caller: str) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put((caller,), future)
        self.metrics.queued()
        started = time.monotonic()
        try:
            await future
        except asyncio.CancelledError:
            was_waiting = self._waiting.remove((caller,), future)
            if not was_waiting and not future.cancelled() and future.exception() is None:
                self._hand_over()  # a slot came at the same moment
            raise
        finally:
            self.metrics.waited(time.monotonic() - started)

    def _hand_over(self) -> None:
        if wake_next(self._waiting):
            return
        self._slot_count -= 1
        self._note_idle()

    def _leave(self, caller: str) -> None:
        self._by_caller[caller] -= 1
        if not self._by_caller[caller]:
            del self._by_caller[caller]


class Places:
    """So many of one kind of call at once, of each address and in all: each takes memory from its beginning."""

    def __init__(self, refusal: str, *, of_address: int, in_all: int | None = None) -> None:
        """`refusal`: what a call without a place is told; it may name the `count` of its address."""
        self._refusal = refusal
        self._of_address = of_address
        self._in_all = in_all
        self._counts: Counter[str] = Counter()

    def take(self, peer: str) -> None:
        """Take a place until the call of this task has ended.

        Raises OverloadedError if its address, or all together, have as many as they may have.
        """
        address = address_of(peer)
        count = self._counts[address]
        if count >= self._of_address or (self._in_all is not None and self._counts.total() >= self._in_all):
            raise _overloaded(self._refusal.format(count=count))
        self._counts[address] = count + 1
        at_end(lambda: self._give(address))

    def _give(self, address: str) -> None:
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]


def open_calls(settings: ServerSettings) -> Places:
    """Places for all calls, whatever their methods."""
    refusal = "{count} calls of this address are open, as many as one address may have"
    return Places(refusal, of_address=settings.max_streams + settings.max_queued_calls + OTHER_CALLS)


def who_calls(peer: str) -> tuple[str, str]:
    """Whose turn it is to compute for this call: its caller's, and of his connections this one's.

    A token is one caller wherever it calls from; without tokens it is the address without the port.
    """
    return caller().name or address_of(peer), peer


@dataclass(eq=False, slots=True)
class Ending:
    """A call whose last message and status are being sent."""

    task: asyncio.Task[Any]
    connection: str
    since: float
    is_stalled: bool = False
    """Whether they, or others of its connection, were not taken for too long."""


class Call:
    """A call: entering takes a slot, or raises what `Admission.acquire` does.

    It is given back when an error leaves the context, or what is left to send is small; else at the call's end.
    """

    def __init__(self, admission: Admission, context: CallContext) -> None:
        self.writing_since: float | None = None
        """Since when its reader has not taken what is being written."""
        self._admission = admission
        self._context = context
        self._who = caller()
        self.peer = current_call().peer
        self.who = who_calls(self.peer)
        self.caller: str = self.who[0]
        self._is_stalled = False
        self._task: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Self:
        self._who.take(0)
        await self._admission.acquire(self.caller)
        self._admission.note_used(self.peer)
        self._task = asyncio.current_task()
        self._admission.running.add(self)
        self._admission.metrics.running(1)
        at_end(self._leave)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:  # what is left to send is an error, which a reader may be slow to take
            self._leave()

    def _leave(self) -> None:
        if self in self._admission.running:
            self._admission.metrics.running(-1)
            self._admission.running.discard(self)
            self._admission.release(self.caller)

    async def write(self, response: Any, model: str, image_count: int, first_index: int | None = None) -> None:
        """Send images of a model; `first_index`: where a stream could be resumed before it.

        Raises StalledReaderError if its reader takes nothing for too long, and what `Caller.take` does if the
        caller's token is good for no more images.
        """
        self._who.take(image_count, first_index)
        self.writing_since = time.monotonic()
        try:
            await self._context.write(response.SerializeToString())
        except asyncio.CancelledError:
            if not self._is_stalled or self._task is None:
                raise
            self._task.uncancel()
            raise StalledReaderError(None if first_index is None else first_index + image_count) from None
        finally:
            self.writing_since = None
        self._count(model, image_count)

    def last(self, response: Any, model: str, image_count: int, first_index: int | None = None) -> bytes:
        """The last message of a call, which its method is to return: as `write` for one that gRPC sends."""
        self._who.take(image_count, first_index)
        self._count(model, image_count)
        data: bytes = response.SerializeToString()
        if len(data) <= _FEW_BYTES:
            self._leave()  # before the caller can have it, so that a next call finds the slot
        return data

    def _count(self, model: str, image_count: int) -> None:
        self._admission.metrics.sent(model, image_count)
        current_call().image_count += image_count

    def end_as_stalled(self) -> None:
        """Let `write` give up."""
        if self._task is not None and not self._is_stalled:
            self._is_stalled = True
            self._task.cancel()


def _overloaded(text: str) -> OverloadedError:
    return OverloadedError(f"{text}; try again later", retry_after_seconds=1.0)


def _stopping() -> NotReadyError:
    return NotReadyError("the server is stopping; try again, on another one if there is one")
