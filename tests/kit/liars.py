"""A real gRPC server of the service that answers as it is told, whatever was asked."""

from concurrent import futures
from contextlib import contextmanager

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, status_pb2

from bgan.v1 import model_pb2, sampling_pb2, sampling_pb2_grpc

SHAPE = model_pb2.ImageShape(channels=1, height=2, width=3)
BATCH_SIZE = 4


def responses(request):
    """What an honest server sends: batches of four dark images of 1x2x3 pixels; six bits, so two of padding."""
    end = request.first_index + request.image_count
    for first in range(request.first_index, end, BATCH_SIZE):
        count = min(BATCH_SIZE, end - first)
        labels = [request.labels[i % len(request.labels)] for i in range(first, first + count) if request.labels]
        yield sampling_pb2.SampleBinaryImagesResponse(
            model=request.model or "m",
            revision=request.revision or "r",
            seed=request.seed,
            version=request.version,
            first_index=first,
            image_count=count,
            image_shape=SHAPE,
            packed_images=bytes(count),
            probabilities=bytes(4 * 6 * count) if request.include_probabilities else b"",
            labels=labels,
        )


def served_model(**fields):
    """A valid model of a list, but for what `fields` says of its manifest."""
    manifest = {"name": "m", "neuron": 1, "binarization": 1, "network": "mlp", "latent_size": 3, **fields}
    return sampling_pb2.ServedModel(
        model=model_pb2.Model(**{"image_shape": SHAPE, **manifest}), revision="r", is_default=True
    )


LIMITS = sampling_pb2.Limits(max_image_count=9, max_batch_size=9, max_message_bytes=9)


class Liar(sampling_pb2_grpc.SamplingServiceServicer):
    """Answers with what its attributes are or return; bytes are sent as they are."""

    def __init__(self):
        self.tell = lambda request, context: responses(request)
        self.models = sampling_pb2.ListModelsResponse(models=[served_model()], limits=LIMITS)
        self.model = sampling_pb2.GetModelResponse(model=served_model(), limits=LIMITS)
        self.get_model = lambda request, context: self.model
        self.target = ""

    def SampleBinaryImages(self, request, context):  # noqa: N802 - gRPC's name
        yield from self.tell(request, context)

    def ListModels(self, request, context):  # noqa: N802
        return self.models

    def GetModel(self, request, context):  # noqa: N802
        return self.get_model(request, context)


def _serialized(message):
    return message if isinstance(message, bytes) else message.SerializeToString()


def abort(context, code, *details):
    """End a call with a code and details: messages, or anything packed."""
    packed = []
    for each in details:
        packed.append(each if isinstance(each, any_pb2.Any) else any_pb2.Any())
        if each is not packed[-1]:
            packed[-1].Pack(each)
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message="no", details=packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, "no")


@contextmanager
def lying_server(address="127.0.0.1:0", liar=None):
    liar, service = liar or Liar(), sampling_pb2.DESCRIPTOR.services_by_name["SamplingService"].full_name
    handlers = {
        "SampleBinaryImages": grpc.unary_stream_rpc_method_handler(
            liar.SampleBinaryImages, sampling_pb2.SampleBinaryImagesRequest.FromString, _serialized
        ),
        "ListModels": grpc.unary_unary_rpc_method_handler(
            liar.ListModels, sampling_pb2.ListModelsRequest.FromString, _serialized
        ),
        "GetModel": grpc.unary_unary_rpc_method_handler(
            liar.GetModel, sampling_pb2.GetModelRequest.FromString, _serialized
        ),
    }
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_registered_method_handlers(service, handlers)
    liar.target = f"127.0.0.1:{server.add_insecure_port(address)}"
    server.start()
    try:
        yield liar
    finally:
        server.stop(0).wait(
            10
        )  # with gRPC 1.73 it may never end, as it does not notice that a connection was reset
