"""inference.GRPCInferenceService, the Open Inference Protocol: the models' graphs, on the caller's own noise."""

from importlib.metadata import version
from typing import Any

from bgan.inference import open_inference_grpc_pb2 as oip
from bgan.inference import open_inference_grpc_pb2_grpc as service

from ..errors import ModelNotFoundError, RevisionNotServedError
from ..models.engine import Engine
from ..models.manifest import input_specs, output_specs
from .admission import Call
from .context import ServiceContext
from .oip_tensors import infer, metadata
from .pool import Steps, timed
from .stream_plan import check_deadline, deadline_of

DESCRIPTOR = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
PROBES = ("ServerLive", "ServerReady")
"""The methods that tell no more than the server's health does."""
_PLATFORM = "onnx_onnxv1"  # the protocol's name for an ONNX file
_MAX_DIGITS = 18  # of a version's number; revisions have 32


class OpenInferenceServicer(service.GRPCInferenceServiceServicer):
    """Answers with what the graph gives for the batch it was sent.

    A model that the sampling service runs in fixed tiles is run here in the caller's batch: its floats
    may then differ in their last bits from those of other batches.
    """

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._models = context.models
        self._metrics = context.metrics

    async def ServerLive(self, request: oip.ServerLiveRequest, context: Any) -> oip.ServerLiveResponse:
        """Whether the server answers at all."""
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(self, request: oip.ServerReadyRequest, context: Any) -> oip.ServerReadyResponse:
        """Whether the models are loaded."""
        return oip.ServerReadyResponse(ready=self._models.registry is not None)

    async def ModelReady(self, request: oip.ModelReadyRequest, context: Any) -> oip.ModelReadyResponse:
        """Whether a model is loaded; NOT_FOUND if there is none of that name and version."""
        if self._models.registry is None:
            return oip.ModelReadyResponse(ready=False)
        self._find(request.name, request.version)
        return oip.ModelReadyResponse(ready=True)

    async def ServerMetadata(self, request: oip.ServerMetadataRequest, context: Any) -> oip.ServerMetadataResponse:
        """Name and version; no extension of the protocol is known."""
        return oip.ServerMetadataResponse(name="bgan", version=version("bgan"))

    async def ModelMetadata(self, request: oip.ModelMetadataRequest, context: Any) -> oip.ModelMetadataResponse:
        """The tensors of one model; its versions are called by their revisions."""
        engine = self._find(request.name, request.version)
        served = self._models.visible().versions(engine.manifest.name) or [engine]
        return oip.ModelMetadataResponse(
            name=engine.manifest.name,
            versions=[each.revision for each in served],
            platform=_PLATFORM,
            inputs=map(metadata, input_specs(engine.manifest)),
            outputs=map(metadata, output_specs(engine.manifest)),
        )

    async def ModelInfer(  # type: ignore[override] # the guard takes bytes as they are
        self, request: oip.ModelInferRequest, context: Any
    ) -> bytes:
        """Run one batch; returns the bytes of its answer."""
        engine = self._find(request.model_name, request.model_version)
        deadline = deadline_of(context)

        def steps() -> Steps[oip.ModelInferResponse]:
            check_deadline(deadline)
            return (yield from infer(request, engine, self._context.settings, self._metrics))

        async with Call(self._context.admission, context) as call:
            work = timed(self._metrics, engine.manifest.name, steps())
            response = await self._context.pool.run(call.who, work)
            return call.last(response, engine.manifest.name, response.outputs[0].shape[0])

    def _find(self, name: str, version: str) -> Engine:
        """The model of a call; a version is its number, or a revision."""
        if len(version) <= _MAX_DIGITS and version.isdecimal():
            return self._models.find(name, version=int(version))
        try:
            return self._models.find(name, revision=version)
        except RevisionNotServedError as error:
            text = str(error)
        raise ModelNotFoundError(text)
