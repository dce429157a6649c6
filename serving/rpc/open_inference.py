"""inference.GRPCInferenceService, the Open Inference Protocol: the models' graphs, on the caller's own noise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from importlib.metadata import version
from typing import Any

from open_inference.grpc import protocol, service

from ..config.settings import ServerSettings
from ..errors import ModelNotFoundError, NotReadyError, RevisionNotServedError
from ..models.engine import Engine
from ..models.registry import Registry
from ..security.auth import ALLOW_ALL, Authenticator, caller
from ..telemetry.call_record import current_call
from ..telemetry.calls import Calls
from ..telemetry.metrics import Metrics
from .admission import Admission
from .deadline import check_deadline, deadline_of
from .guard import guarded
from .oip_tensors import TensorSpec, infer, input_specs, output_specs

_DESCRIPTOR = protocol.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE = _DESCRIPTOR.full_name
_PLATFORM = "onnx_onnxv1"  # the protocol's name for an ONNX file
_DIGITS_AT_MOST = 18  # of a version's number; revisions have 32
_TensorMetadata = protocol.ModelMetadataResponse.TensorMetadata


def register(
    server: Any,
    settings: ServerSettings,
    admission: Admission,
    executor: Executor,
    registry: Callable[[], Registry | None],
    metrics: Metrics,
    calls: Calls,
    access: Authenticator,
) -> None:
    """Add the protocol to a grpc.aio server; `registry` gives the models, or None until they are loaded."""
    servicer = OpenInferenceServicer(settings, admission, executor, registry, metrics)
    methods = guarded(servicer, _DESCRIPTOR, metrics, calls, access)
    if settings.health == "open":  # they say no more than the health does
        of_health = guarded(servicer, _DESCRIPTOR, metrics, calls, ALLOW_ALL)
        methods.ServerLive, methods.ServerReady = of_health.ServerLive, of_health.ServerReady
    service.add_GRPCInferenceServiceServicer_to_server(methods, server)  # type: ignore[no-untyped-call]


class OpenInferenceServicer(service.GRPCInferenceServiceServicer):
    """Answers with what the graph gives for the batch it was sent; inference runs in `executor`.

    A model that the sampling service runs in fixed tiles is run here in the caller's batch: its floats
    may then differ in their last bits from those of other batches.
    """

    def __init__(
        self,
        settings: ServerSettings,
        admission: Admission,
        executor: Executor,
        registry: Callable[[], Registry | None],
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._admission = admission
        self._executor = executor
        self._registry = registry
        self._metrics = metrics

    async def ServerLive(self, request: protocol.ServerLiveRequest, context: Any) -> protocol.ServerLiveResponse:
        """Whether the server answers at all."""
        return protocol.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: protocol.ServerReadyRequest, context: Any
    ) -> protocol.ServerReadyResponse:
        """Whether the models are loaded."""
        return protocol.ServerReadyResponse(ready=self._registry() is not None)

    async def ModelReady(self, request: protocol.ModelReadyRequest, context: Any) -> protocol.ModelReadyResponse:
        """Whether a model is loaded; NOT_FOUND if there is none of that name and version."""
        if self._registry() is None:
            return protocol.ModelReadyResponse(ready=False)
        self._find(request.name, request.version)
        return protocol.ModelReadyResponse(ready=True)

    async def ServerMetadata(
        self, request: protocol.ServerMetadataRequest, context: Any
    ) -> protocol.ServerMetadataResponse:
        """Name and version; no extension of the protocol is known."""
        return protocol.ServerMetadataResponse(name="bgan", version=version("bgan"))

    async def ModelMetadata(
        self, request: protocol.ModelMetadataRequest, context: Any
    ) -> protocol.ModelMetadataResponse:
        """The tensors of one model; its versions are called by their revisions."""
        engine = self._find(request.name, request.version)
        return protocol.ModelMetadataResponse(
            name=engine.manifest.name,
            versions=self._revisions(engine),
            platform=_PLATFORM,
            inputs=map(_metadata, input_specs(engine)),
            outputs=map(_metadata, output_specs(engine)),
        )

    async def ModelInfer(self, request: protocol.ModelInferRequest, context: Any) -> protocol.ModelInferResponse:
        """Run one batch."""
        engine = self._find(request.model_name, request.model_version)
        deadline = deadline_of(context)

        def run() -> protocol.ModelInferResponse:
            check_deadline(deadline)
            started = time.perf_counter()
            response = infer(request, engine, self._settings)
            self._metrics.inferred(engine.manifest.name, time.perf_counter() - started)
            return response

        async with self._admission.call(context) as call:
            response = await asyncio.get_running_loop().run_in_executor(self._executor, run)
            row_count = response.outputs[0].shape[0]
            call.take(row_count)
            self._metrics.sent(engine.manifest.name, row_count)
            current_call().image_count += row_count
            return response

    def _find(self, name: str, version: str) -> Engine:
        """The model of a call; a version is its number, or a revision."""
        engine = self._look_up(name, version)
        current_call().serves(engine)
        return engine

    def _look_up(self, name: str, version: str) -> Engine:
        registry = self._registry()
        if registry is None:
            raise NotReadyError("the models are still loading; try again in a second")
        registry = registry.visible_to(caller().model_patterns)
        if len(version) <= _DIGITS_AT_MOST and version.isdecimal():
            return registry.find(name, version=int(version))
        try:
            return registry.find(name, revision=version)
        except RevisionNotServedError as error:
            text = str(error)
        raise ModelNotFoundError(text)

    def _revisions(self, engine: Engine) -> list[str]:
        registry = self._registry()
        versions = registry.versions(engine.manifest.name) if registry is not None else []
        return [version.revision for version in versions] or [engine.revision]


def _metadata(spec: TensorSpec) -> protocol.ModelMetadataResponse.TensorMetadata:
    return _TensorMetadata(name=spec.name, datatype=spec.datatype, shape=[-1, *spec.row_shape])
