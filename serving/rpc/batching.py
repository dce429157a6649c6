"""How batches are computed: small requests of different callers and seeds share one, streams are kept ahead."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager

from bgan.v1 import sampling_pb2

from ..models.engine import RUN_ROWS, Engine, ImageBatch
from ..models.noise import ImageRange
from ..telemetry.metrics import NO_METRICS, Metrics
from .stream_plan import StreamPlan

MAX_SHARED_IMAGES = 16
"""Requests for more images than this run alone."""
DELAY_SECONDS = 0.002
"""The longest that a request waits for others to share its run with."""
_SECONDS_ON_LOOP = 0.002
_QUIET_TURNS = 4  # of the event loop: calls that gRPC has taken meanwhile arrive within them
_MAX_BYTES_AHEAD = 16 * 1024 * 1024
_Response = sampling_pb2.SampleBinaryImagesResponse
_Waiting = tuple[ImageRange, asyncio.Future[ImageBatch]]


class DynamicBatcher:
    """Runs small requests on one engine, several of them at a time when several callers are active.

    A lone caller never waits. While other small calls are open, those that wait are run as soon as all open ones
    do and no more arrive, and after `delay_seconds` at the latest.
    """

    def __init__(
        self,
        engine: Engine,
        executor: Executor,
        metrics: Metrics = NO_METRICS,
        *,
        delay_seconds: float = DELAY_SECONDS,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._executor = executor
        self._delay_seconds = delay_seconds
        self._waiting: deque[_Waiting] = deque()
        self._open_count = 0
        self._arrival_count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_lone_caller = True
        # A short run on the event loop takes less than handing it to a thread and back.
        self._rows_on_loop = int(_SECONDS_ON_LOOP / engine.seconds_per_image)

    def takes(self, image_count: int) -> bool:
        """Whether a request for so many images is a small one."""
        return image_count <= MAX_SHARED_IMAGES and self._engine.tile_rows is None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around a whole small call, the sending of its answer too: others may wait for its next one."""
        self._open_count += 1
        try:
            yield
        finally:
            self._open_count -= 1

    async def sample(self, images: ImageRange) -> ImageBatch:
        """The images of a small request, within its `call`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ImageBatch] = loop.create_future()
        self._waiting.append((images, future))
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
        while self._waiting and rows + self._waiting[0][0].count <= RUN_ROWS:
            images, future = self._waiting.popleft()
            if not future.done():  # its caller may have gone
                taken.append((images, future))
                rows += images.count
        return taken

    def _run(self, taken: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        ranges = [images for images, _ in taken]
        if sum(images.count for images in ranges) > self._rows_on_loop:
            running = loop.run_in_executor(self._executor, self._sample, ranges)
            running.add_done_callback(lambda done: _answer(taken, done))
            return
        answers: asyncio.Future[list[ImageBatch]] = loop.create_future()
        try:
            answers.set_result(self._sample(ranges))
        except Exception as error:
            answers.set_exception(error)
        _answer(taken, answers)

    def _sample(self, ranges: Sequence[ImageRange]) -> list[ImageBatch]:
        return self._metrics.timed(self._engine.manifest.name, self._engine.sample_ranges, ranges)


def _answer(taken: list[_Waiting], answers: asyncio.Future[list[ImageBatch]]) -> None:
    error = answers.exception()
    for number, (_, future) in enumerate(taken):
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(answers.result()[number])


class Prefetcher:
    """Computes the batches of all streams in `executor`.

    Each stream may have one batch computed or in work, and up to `batches` as long as those beyond the first take
    at most 16 MiB in all streams together. So a stalled reader costs one batch, however many there are.
    """

    def __init__(self, executor: Executor, *, batches: int, metrics: Metrics = NO_METRICS) -> None:
        self._executor = executor
        self._metrics = metrics
        self._batches = batches
        self._bytes_left = _MAX_BYTES_AHEAD

    async def compute(self, plan: StreamPlan) -> AsyncGenerator[_Response, None]:
        """The responses of a stream, in order."""
        loop, timed, name = asyncio.get_running_loop(), self._metrics.timed, plan.engine.manifest.name
        batches = plan.batches()
        pending: deque[asyncio.Future[_Response]] = deque()
        extra = 0  # of the pending ones, how many count against the bound
        try:
            while True:
                while len(pending) < self._batches and (not pending or self._bytes_left >= plan.batch_bytes):
                    batch = next(batches, None)
                    if batch is None:
                        break
                    if pending:
                        extra += 1
                        self._bytes_left -= plan.batch_bytes
                    pending.append(loop.run_in_executor(self._executor, timed, name, plan.response, *batch))
                if not pending:
                    return
                response = await pending.popleft()
                if extra:
                    extra -= 1
                    self._bytes_left += plan.batch_bytes
                yield response
        finally:
            self._bytes_left += extra * plan.batch_bytes
            for future in pending:
                future.cancel()
