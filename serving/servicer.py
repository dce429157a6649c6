"""bgan.v1.SamplingService: validate, call, encode."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from itertools import islice
from typing import Any

from bgan.v1 import sampling_pb2, sampling_pb2_grpc

from .config import ServerSettings
from .engine import Engine
from .errors import NotReadyError, OverloadedError, StreamCutError
from .registry import Registry
from .streams import StreamPlan, plan_stream

_RETRY_AFTER_SECONDS = 1.0
_BATCHES_AHEAD = 2  # the noise of one is drawn while another is inferred


class SamplingServicer(sampling_pb2_grpc.SamplingServiceServicer):
    """Streams batches of images; inference runs in `executor`, off the event loop."""

    def __init__(self, settings: ServerSettings, executor: Executor) -> None:
        self.registry: Registry | None = None
        """The models; None until they are loaded."""
        self._settings = settings
        self._executor = executor
        self._stream_count = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._cutting = False

    def cut_streams(self) -> None:
        """End every stream at its next image boundary."""
        self._cutting = True

    async def wait_until_idle(self) -> None:
        """Wait until no stream is running."""
        await self._idle.wait()

    async def SampleBinaryImages(
        self, request: sampling_pb2.SampleBinaryImagesRequest, context: Any
    ) -> AsyncIterator[sampling_pb2.SampleBinaryImagesResponse]:
        """Stream the batches of a request, computed ahead while earlier ones are sent."""
        plan = plan_stream(request, self._models().find(request.model), self._settings)
        with self._stream_slot():
            async for response in self._responses(plan):
                yield response

    async def ListModels(
        self, request: sampling_pb2.ListModelsRequest, context: Any
    ) -> sampling_pb2.ListModelsResponse:
        """All models, by name."""
        registry = self._models()
        models = [_served(engine, registry) for engine in registry.engines.values()]
        return sampling_pb2.ListModelsResponse(models=models, limits=self._limits())

    async def GetModel(self, request: sampling_pb2.GetModelRequest, context: Any) -> sampling_pb2.GetModelResponse:
        """One model."""
        registry = self._models()
        model = _served(registry.find(request.name), registry)
        return sampling_pb2.GetModelResponse(model=model, limits=self._limits())

    async def _responses(self, plan: StreamPlan) -> AsyncIterator[sampling_pb2.SampleBinaryImagesResponse]:
        loop = asyncio.get_running_loop()
        batches = plan.batches()
        pending = deque(self._start(loop, plan, batch) for batch in islice(batches, _BATCHES_AHEAD))
        next_index = plan.first_index
        while pending:
            if self._cutting:
                for future in pending:
                    future.cancel()
                raise StreamCutError(next_index)
            response = await pending.popleft()
            pending.extend(self._start(loop, plan, batch) for batch in islice(batches, 1))
            next_index = response.first_index + response.image_count
            yield response

    def _start(
        self, loop: asyncio.AbstractEventLoop, plan: StreamPlan, batch: tuple[int, int]
    ) -> asyncio.Future[sampling_pb2.SampleBinaryImagesResponse]:
        return loop.run_in_executor(self._executor, plan.response, *batch)

    def _models(self) -> Registry:
        if self.registry is None:
            raise NotReadyError("the models are still loading; try again in a second")
        return self.registry

    @contextmanager
    def _stream_slot(self) -> Iterator[None]:
        if self._stream_count >= self._settings.max_streams:
            raise OverloadedError(
                f"{self._stream_count} streams are running, as many as this server takes; try again later",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self._stream_count += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._stream_count -= 1
            if self._stream_count == 0:
                self._idle.set()

    def _limits(self) -> sampling_pb2.Limits:
        return sampling_pb2.Limits(
            max_image_count=self._settings.max_image_count,
            max_batch_size=self._settings.max_batch_size,
            max_message_bytes=self._settings.max_message_bytes,
        )


def _served(engine: Engine, registry: Registry) -> sampling_pb2.ServedModel:
    tiled = engine.tile_rows is not None
    return sampling_pb2.ServedModel(
        model=engine.manifest,
        revision=engine.revision,
        is_default=engine.manifest.name == registry.default_model,
        execution=sampling_pb2.EXECUTION_FIXED_TILES if tiled else sampling_pb2.EXECUTION_ANY_BATCH,
    )
