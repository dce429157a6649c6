"""Batches of streams, computed ahead while earlier ones are sent, within a bound for all streams together."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from concurrent.futures import Executor

from bgan.v1 import sampling_pb2

from ..telemetry.metrics import NO_METRICS, Metrics
from .stream_plan import StreamPlan

_MAX_BYTES = 16 * 1024 * 1024
_Response = sampling_pb2.SampleBinaryImagesResponse


class Prefetcher:
    """Computes the batches of all streams in `executor`.

    Each stream may have one batch computed or in work, and up to `batches` as long as those beyond the first take
    at most 16 MiB in all streams together. So a stalled reader costs one batch, however many there are.
    """

    def __init__(self, executor: Executor, *, batches: int, metrics: Metrics = NO_METRICS) -> None:
        self._executor = executor
        self._metrics = metrics
        self._batches = batches
        self._bytes_left = _MAX_BYTES

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
