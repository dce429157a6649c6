"""Batches of streams, computed ahead while earlier ones are sent, within a bound for all streams together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator
from concurrent.futures import Executor

from bgan.v1 import sampling_pb2

from ..telemetry.metrics import NO_METRICS, Metrics
from .stream_plan import StreamPlan

_BYTES_AT_MOST = 16 * 1024 * 1024
_Response = sampling_pb2.SampleBinaryImagesResponse


class Lookahead:
    """Computes the batches of all streams in `executor`.

    Each stream may have one batch computed or being computed at any time, and up to `batches` as long
    as those beyond the first take at most 16 MiB in all streams together. So readers that stand still
    cost a batch each, whatever their number.
    """

    def __init__(self, executor: Executor, *, batches: int, metrics: Metrics = NO_METRICS) -> None:
        self._executor = executor
        self._metrics = metrics
        self._batches = batches
        self._bytes_left = _BYTES_AT_MOST

    async def compute(self, plan: StreamPlan) -> AsyncGenerator[_Response, None]:
        """The responses of a stream, in order."""
        loop = asyncio.get_running_loop()
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
                    pending.append(loop.run_in_executor(self._executor, self._respond, plan, *batch))
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

    def _respond(self, plan: StreamPlan, first_index: int, count: int) -> _Response:
        started = time.perf_counter()
        response = plan.response(first_index, count)
        self._metrics.inferred(plan.engine.manifest.name, time.perf_counter() - started)
        return response
