"""Shared runs: small requests of different callers and seeds that meet become one inference (dynamic batching)."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Executor

from .engine import RUN_ROWS, Engine
from .noise import ImageRange

SHARED_IMAGES_AT_MOST = 16
"""Requests for more images than this run alone."""
_SECONDS_ON_LOOP = 0.002
_Waiting = tuple[ImageRange, asyncio.Future[bytes]]


class SharedRuns:
    """Runs small requests on one engine, together with those that arrive while it is busy.

    A request waits for nobody: the first one is run as soon as the event loop has handled what has
    already arrived, and so are those that arrive during a run, all at once. So the delay that sharing
    adds is bounded by one run, of RUN_ROWS rows at most.
    """

    def __init__(self, engine: Engine, executor: Executor) -> None:
        self._engine = engine
        self._executor = executor
        self._waiting: deque[_Waiting] = deque()
        self._running: asyncio.Task[None] | None = None
        # A short run on the event loop takes less than handing it to a thread and back.
        self._rows_on_loop = int(_SECONDS_ON_LOOP / engine.seconds_per_image)

    def takes(self, image_count: int) -> bool:
        """Whether a request for so many images is a small one."""
        return image_count <= SHARED_IMAGES_AT_MOST and self._engine.tile_rows is None

    async def sample(self, images: ImageRange) -> bytes:
        """The packed images of a small request."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()
        self._waiting.append((images, future))
        if self._running is None:
            self._running = loop.create_task(self._run_all())
        return await future

    async def _run_all(self) -> None:
        try:
            while self._waiting:
                await self._run(self._next_run())
                await asyncio.sleep(0)  # lets in what has arrived meanwhile
        finally:
            self._running = None

    def _next_run(self) -> list[_Waiting]:
        taken: list[_Waiting] = []
        rows = 0
        while self._waiting and rows + self._waiting[0][0].count <= RUN_ROWS:
            images, future = self._waiting.popleft()
            if not future.done():  # its caller may have gone
                taken.append((images, future))
                rows += images.count
        return taken

    async def _run(self, taken: list[_Waiting]) -> None:
        ranges = [images for images, _ in taken]
        try:
            if sum(images.count for images in ranges) <= self._rows_on_loop:
                answers = self._engine.sample_ranges(ranges)
            else:
                loop = asyncio.get_running_loop()
                answers = await loop.run_in_executor(self._executor, self._engine.sample_ranges, ranges)
        except Exception as error:
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(taken, answers, strict=True):
            if not future.done():
                future.set_result(answer)
