"""bgan.v1.SamplingService: validate, call, encode."""

from typing import Any

from bgan.v1 import sampling_pb2 as pb
from bgan.v1 import sampling_pb2_grpc

from ..errors import StreamCutError
from ..models.engine import Engine
from ..models.registry import Registry
from .admission import Call
from .batching import DynamicBatcher, Prefetcher
from .call_end import at_end
from .context import ServiceContext
from .model_pages import page_of
from .stream_plan import StreamPlan, deadline_of, plan_stream


class SamplingServicer(sampling_pb2_grpc.SamplingServiceServicer):
    """Streams batches of images; small requests share runs."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._models = context.models
        self._metrics = context.metrics
        self._prefetcher = Prefetcher(context.pool, batches=context.threads + 1, metrics=context.metrics)
        self._batchers: dict[Engine, DynamicBatcher] = {}
        self._cutting = False
        names = [field.name for field in pb.Limits.DESCRIPTOR.fields]
        self._limits = pb.Limits(**{name: getattr(context.settings, name) for name in names})

    def serve(self, registry: Registry) -> None:
        """Answer new calls with these models; calls in flight end on those that they began with."""
        self._batchers = {
            engine: self._batchers.get(engine) or DynamicBatcher(engine, self._context.pool, self._metrics)
            for engine in registry.kept_engines()
        }
        self._metrics.serving(registry)
        self._models.registry = registry

    def cut_streams(self) -> None:
        """End every stream at its next image boundary."""
        self._cutting = True

    async def SampleBinaryImages(  # type: ignore[override] # grpc.aio takes generators and writers alike
        self, request: pb.SampleBinaryImagesRequest, context: Any
    ) -> bytes:
        """Write the batches of a request, computed ahead of their reader; returns the bytes of the last."""
        engine = self._models.find(request.model, version=request.version, revision=request.revision)
        plan = plan_stream(request, engine, self._context.settings, deadline=deadline_of(context))
        batcher = self._batchers[engine]
        async with Call(self._context.admission, context) as call:
            if not (plan.is_one_batch and batcher.takes(plan.images.count)):
                return await self._write_batches(plan, call, context)
            batcher.begin_call()
            at_end(batcher.end_call)
            images = await batcher.sample(plan.images, call.who)
            response = plan.encode(plan.images.first_index, images)
            return call.last(response, *_counted(response))

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        """A page of the models, by name; on the first one also the files that cannot be served."""
        registry = self._models.visible()
        engines, next_page_token = page_of(registry.engines, request.page_size, request.page_token)
        failures = () if request.page_token else registry.failures
        return pb.ListModelsResponse(
            models=[_served(engine, registry) for engine in engines],
            limits=self._limits,
            failures=[pb.ModelFailure(model=each.model, reason=each.reason) for each in failures],
            next_page_token=next_page_token,
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        """One model."""
        engine = self._models.find(request.name, version=request.version, revision=request.revision)
        return pb.GetModelResponse(model=_served(engine, self._models.visible()), limits=self._limits)

    async def _write_batches(self, plan: StreamPlan, call: Call, context: Any) -> bytes:
        batches = self._prefetcher.begin(plan, call.who)
        at_end(batches.close)
        try:
            async for response in batches:
                if self._cutting:
                    raise StreamCutError(response.first_index)
                if response.first_index + response.image_count == plan.images.first_index + plan.images.count:
                    return call.last(response, *_counted(response))
                if response.first_index == plan.images.first_index:
                    # With the first message gRPC would take it for sent only after that, and send no end before.
                    await context.send_initial_metadata(())
                await call.write(response, *_counted(response))
        except BaseException:
            batches.close()
            raise
        raise AssertionError("a stream ended before its last image")


def _counted(response: pb.SampleBinaryImagesResponse) -> tuple[str, int, int]:
    return response.model, response.image_count, response.first_index


def _served(engine: Engine, registry: Registry) -> pb.ServedModel:
    tiled = engine.tile_rows is not None
    return pb.ServedModel(
        model=engine.manifest,
        revision=engine.revision,
        is_default=engine is registry.default_engine,
        version=engine.version,
        execution=pb.EXECUTION_FIXED_TILES if tiled else pb.EXECUTION_ANY_BATCH,
    )
