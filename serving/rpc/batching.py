"""How batches are computed: small requests of different callers and seeds share one, streams are kept ahead."""

import asyncio
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Self

from bgan.v1 import sampling_pb2

from ..models.engine import Engine, ImageBatch
from ..models.noise import ImageRange
from ..telemetry.metrics import NO_METRICS, Metrics
from .pool import FairPool, in_one_step, timed
from .stream_plan import StreamPlan
from .turns import Turns, Who

MAX_SHARED_IMAGES = 16
"""Requests for more images than this run alone."""
DELAY_SECONDS = 0.002
"""The longest that a request waits for others to share its run with."""
_SECONDS_ON_LOOP = 0.002
_QUIET_TURNS = 4  # of the event loop: calls that gRPC has taken meanwhile arrive within them
_MAX_BYTES_AHEAD = 16 * 1024 * 1024
_FEW_BYTES = 256 * 1024
MAX_BYTES_OF_CALLER = 64 * 1024 * 1024
"""What a caller's streams may have computed, or in work, that he has not yet taken; small messages never wait."""
_Response = sampling_pb2.SampleBinaryImagesResponse
_Waiting = tuple[Who, ImageRange, asyncio.Future[ImageBatch]]  # who waits, for what


class DynamicBatcher:
    """Runs small requests on one engine, several of them at a time when several callers are active.

    A lone caller never waits. While other small calls are open, those that wait are run as soon as all open ones
    do and no more arrive, and after `delay_seconds` at the latest.
    """

    def __init__(
        self,
        engine: Engine,
        pool: FairPool,
        metrics: Metrics = NO_METRICS,
        *,
        delay_seconds: float = DELAY_SECONDS,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._pool = pool
        self._delay_seconds = delay_seconds
        self._waiting: Turns[_Waiting] = Turns()
        self._open_count = 0
        self._arrival_count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_lone_caller = True
        # A short run on the event loop takes less than handing it to a thread and back.
        self._rows_on_loop = int(_SECONDS_ON_LOOP / engine.seconds_per_image)

    def takes(self, image_count: int) -> bool:
        """Whether a request for so many images is a small one."""
        return image_count <= MAX_SHARED_IMAGES and self._engine.tile_rows is None

    def begin_call(self) -> None:
        """A small call begins; until `end_call`, when its answer was taken, others may wait for its next one."""
        self._open_count += 1

    def end_call(self) -> None:
        """It has ended."""
        self._open_count -= 1

    async def sample(self, images: ImageRange, who: Who = ()) -> ImageBatch:
        """The images of a small request of a caller, within its `call`."""
        if self._open_count == 1 and images.count <= self._rows_on_loop:
            self._is_lone_caller = True
            return self._sample([images])[0]
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ImageBatch] = loop.create_future()
        self._waiting.put(who, (who, images, future))
        self._arrival_count += 1
        if self._timer is None and self._open_count > 1:
            self._timer = loop.call_later(self._delay_seconds, self.run_waiting)
        if len(self._waiting) >= self._open_count:
            self._run_if_quiet(self._arrival_count, 0 if self._is_lone_caller else _QUIET_TURNS)
        return await future

    def run_waiting(self) -> None:
        """Run all requests that wait, without further delay."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            if taken := self._next_run():
                self._run(taken)

    def _run_if_quiet(self, arrival_count: int, turns: int) -> None:
        if arrival_count != self._arrival_count:
            return
        if turns == 0:
            self.run_waiting()
        else:
            asyncio.get_running_loop().call_soon(self._run_if_quiet, arrival_count, turns - 1)

    def _next_run(self) -> list[_Waiting]:
        self._is_lone_caller = self._open_count == 1
        taken: list[_Waiting] = []
        rows = 0
        while self._waiting and rows + self._waiting.peek()[1].count <= self._engine.run_rows:
            waiting = self._waiting.take()
            if not waiting[2].done():  # its caller may have gone
                taken.append(waiting)
                rows += waiting[1].count
        return taken

    def _run(self, taken: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        ranges = [images for _, images, _ in taken]
        if sum(images.count for images in ranges) > self._rows_on_loop:
            # It takes the turn of the caller whose request came first.
            running = self._pool.run(taken[0][0], in_one_step(self._sample, ranges))
            running.add_done_callback(lambda done: _answer(taken, done))
            return
        answers: asyncio.Future[list[ImageBatch]] = loop.create_future()
        try:
            answers.set_result(self._sample(ranges))
        except Exception as error:
            answers.set_exception(error)
        _answer(taken, answers)

    def _sample(self, ranges: Sequence[ImageRange]) -> list[ImageBatch]:
        name = self._engine.manifest.name
        batches = self._metrics.timed(name, self._engine.sample_ranges, ranges)
        if self._engine.part_count:
            part_runs = [sum(runs) for runs in zip(*(each.part_runs for each in batches), strict=True)]
            self._metrics.routed(name, sum(images.count for images in ranges), part_runs)
        return batches


def _answer(taken: list[_Waiting], answers: asyncio.Future[list[ImageBatch]]) -> None:
    error = answers.exception()
    for number, (_, _, future) in enumerate(taken):
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(answers.result()[number])


class Prefetcher:
    """Computes the batches of all streams in a pool.

    Each stream may have one batch computed or in work, and up to `batches` as long as those beyond the first take
    at most 16 MiB in all streams together. So a stalled reader costs one batch, however many there are. A caller's
    streams wait for each other where their batches would take more than MAX_BYTES_OF_CALLER.
    """

    def __init__(self, pool: FairPool, *, batches: int, metrics: Metrics = NO_METRICS) -> None:
        self._pool = pool
        self._metrics = metrics
        self.room = _Room()
        self.batches = batches
        self.bytes_left = _MAX_BYTES_AHEAD
        """Of those that all streams may have computed beyond one batch each."""

    def compute(self, plan: StreamPlan, batch: tuple[int, int], who: Who) -> asyncio.Future[_Response]:
        """Compute one batch of a plan."""
        steps = plan.response(*batch, self._metrics)
        return self._pool.run(who, timed(self._metrics, plan.engine.manifest.name, steps))

    def begin(self, plan: StreamPlan, who: Who = ()) -> "Ahead":
        """The responses of a caller's stream, in order; to be closed."""
        return Ahead(self, plan, who)


class Ahead:
    """The batches of a stream, as an asynchronous iterator, computed ahead of their reader."""

    def __init__(self, prefetcher: Prefetcher, plan: StreamPlan, who: Who) -> None:
        self._of_all = prefetcher
        self._plan, self._who = plan, who
        self._size = plan.batch_bytes
        self._batches = plan.batches()
        self._pending: deque[asyncio.Future[_Response]] = deque()
        self._extra = 0  # of the pending ones, how many count against the bound of all
        self._held = 0  # how many count against that of the caller: the pending ones, and the one being sent

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Response:
        """The next response; the one before was taken."""
        self._give(self._held - len(self._pending))
        await self._fill()
        if not self._pending:
            raise StopAsyncIteration
        response = await self._pending.popleft()
        if self._extra:
            self._extra -= 1
            self._of_all.bytes_left += self._size
        return response

    async def _fill(self) -> None:
        of_all, caller = self._of_all, self._who[:1]
        while len(self._pending) < of_all.batches and (not self._pending or of_all.bytes_left >= self._size):
            if self._pending and not of_all.room.has(caller, self._size):
                return
            batch = next(self._batches, None)
            if batch is None:
                return
            await of_all.room.take(caller, self._size)
            self._held += 1
            if self._pending:
                self._extra += 1
                of_all.bytes_left -= self._size
            self._pending.append(of_all.compute(self._plan, batch, self._who))

    def close(self) -> None:
        """Give up what is not sent."""
        self._of_all.bytes_left += self._extra * self._size
        self._give(self._held)
        for future in self._pending:
            future.cancel()
        self._pending.clear()
        self._extra = 0

    def _give(self, count: int) -> None:
        self._held -= count
        self._of_all.room.give(self._who[:1], count * self._size)


class _Room:
    """Bytes that each caller holds."""

    def __init__(self) -> None:
        self._held: dict[Hashable, int] = {}
        self._waiting: dict[Hashable, list[asyncio.Future[None]]] = {}

    def has(self, who: Hashable, size: int) -> bool:
        """Whether there is room now; for one who holds nothing, or wants little, there always is."""
        held = self._held.get(who, 0)
        return not held or size <= _FEW_BYTES or held + size <= MAX_BYTES_OF_CALLER

    async def take(self, who: Hashable, size: int) -> None:
        """Hold so many more, once there is room."""
        while not self.has(who, size):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(who, []).append(turn)
            await turn
        self._held[who] = self._held.get(who, 0) + size

    def give(self, who: Hashable, size: int) -> None:
        """Hold so many less."""
        self._held[who] = self._held.get(who, 0) - size
        if not self._held[who]:
            del self._held[who]
        for turn in self._waiting.pop(who, ()):
            if not turn.done():
                turn.set_result(None)
