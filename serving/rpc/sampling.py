"""bgan.v1.SamplingService: validate, call, encode."""

from __future__ import annotations

from concurrent.futures import Executor
from contextlib import aclosing
from typing import Any

from bgan.v1 import sampling_pb2, sampling_pb2_grpc

from ..config.settings import ServerSettings
from ..errors import NotReadyError, StreamCutError
from ..models.engine import Engine
from ..models.registry import Registry
from ..security.auth import caller
from ..telemetry.call_record import current_call
from ..telemetry.metrics import Metrics
from .admission import Admission, Call
from .batching import SharedRuns
from .deadline import deadline_of
from .prefetch import Lookahead
from .stream_plan import StreamPlan, plan_stream


class SamplingServicer(sampling_pb2_grpc.SamplingServiceServicer):
    """Streams batches of images; small requests share runs, others are computed in `executor`."""

    def __init__(
        self,
        settings: ServerSettings,
        admission: Admission,
        executor: Executor,
        *,
        threads: int,
        metrics: Metrics,
    ) -> None:
        """`threads`: how many batches the executor computes at once."""
        self.registry: Registry | None = None
        """The models; None until `serve`."""
        self._shared: dict[Engine, SharedRuns] = {}
        self._settings = settings
        self._admission = admission
        self._executor = executor
        self._metrics = metrics
        self._lookahead = Lookahead(executor, batches=threads + 1, metrics=metrics)
        self._cutting = False

    def serve(self, registry: Registry) -> None:
        """Answer new calls with these models from now on; calls in flight end on the ones that they began with."""
        self._shared = {
            engine: self._shared.get(engine) or SharedRuns(engine, self._executor, self._metrics)
            for engine in registry.kept_engines()
        }
        self._metrics.serving(registry)
        self.registry = registry

    def cut_streams(self) -> None:
        """End every stream at its next image boundary."""
        self._cutting = True

    async def SampleBinaryImages(  # type: ignore[override] # grpc.aio takes generators and writers alike
        self, request: sampling_pb2.SampleBinaryImagesRequest, context: Any
    ) -> None:
        """Write the batches of a request, computed ahead while earlier ones are sent."""
        engine = self._models().find(request.model, version=request.version, revision=request.revision)
        current_call().serves(engine)
        plan = plan_stream(request, engine, self._settings, deadline=deadline_of(context))
        shared = self._shared[engine]
        async with self._admission.call(context) as call:
            if plan.is_one_batch and shared.takes(plan.image_count):
                with shared.call():
                    response = plan.encode(plan.first_index, await shared.sample(plan.images))
                    await call.write(response, next_index=plan.first_index + plan.image_count)
                    self._note_sent(response)
            else:
                await self._write_batches(plan, call)

    async def ListModels(
        self, request: sampling_pb2.ListModelsRequest, context: Any
    ) -> sampling_pb2.ListModelsResponse:
        """All models, by name, and the files that cannot be served."""
        registry = self._models()
        return sampling_pb2.ListModelsResponse(
            models=[_served(engine, registry) for engine in registry.engines],
            limits=self._limits(),
            failures=[
                sampling_pb2.ModelFailure(model=failure.model, reason=failure.reason)
                for failure in registry.failures
            ],
        )

    async def GetModel(self, request: sampling_pb2.GetModelRequest, context: Any) -> sampling_pb2.GetModelResponse:
        """One model."""
        registry = self._models()
        engine = registry.find(request.name, version=request.version, revision=request.revision)
        current_call().serves(engine)
        model = _served(engine, registry)
        return sampling_pb2.GetModelResponse(model=model, limits=self._limits())

    async def _write_batches(self, plan: StreamPlan, call: Call) -> None:
        next_index = plan.first_index
        async with aclosing(self._lookahead.compute(plan)) as responses:
            async for response in responses:
                if self._cutting:
                    raise StreamCutError(next_index)
                next_index = response.first_index + response.image_count
                await call.write(response, next_index=next_index)
                self._note_sent(response)

    def _note_sent(self, response: sampling_pb2.SampleBinaryImagesResponse) -> None:
        self._metrics.sent(response.model, response.image_count)
        current_call().image_count += response.image_count

    def _models(self) -> Registry:
        if self.registry is None:
            raise NotReadyError("the models are still loading; try again in a second")
        return self.registry.visible_to(caller().model_patterns)

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
        is_default=engine is registry.default_engine,
        version=engine.version,
        execution=sampling_pb2.EXECUTION_FIXED_TILES if tiled else sampling_pb2.EXECUTION_ANY_BATCH,
    )
