"""Requests and responses: what goes over the wire, as what the clients take and return."""

import math
import re
from dataclasses import dataclass, fields

import grpc
import numpy as np

from bgan.v1 import model_pb2, sampling_pb2

from ._errors import SamplingError, data_loss
from ._types import ImageBatch, Limits, ModelFailure, ModelInfo, ModelList

_SENT = [field.name for field in sampling_pb2.SampleBinaryImagesRequest.DESCRIPTOR.fields]
_LIMITS = [field.name for field in fields(Limits)]
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/@+=-]{1,128}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRequest:
    """The arguments of `sample_binary_images`. Raises SamplingError for a value that cannot be sent."""

    image_count: int
    seed: int | None = None
    model: str = ""
    version: int | None = None
    first_index: int = 0
    batch_size: int | None = None
    include_probabilities: bool = False
    revision: str | None = None
    labels: tuple[int, ...] = ()
    request_id: str | None = None

    def __post_init__(self) -> None:
        check_request_id(self.request_id)
        self.message()

    @property
    def end_index(self) -> int:
        """The index after the last image."""
        return self.first_index + self.image_count

    def message(self) -> sampling_pb2.SampleBinaryImagesRequest:
        """What goes over the wire. Raises SamplingError where a number does not fit its field."""
        try:
            return sampling_pb2.SampleBinaryImagesRequest(**{name: getattr(self, name) for name in _SENT})
        except ValueError as error:
            raise SamplingError(
                f"a number is out of range ({error}); counts, seeds, indices end at 2^63 - 1, labels at 2^31 - 1",
                code=grpc.StatusCode.INVALID_ARGUMENT,
            ) from error


def check_request_id(request_id: str | None) -> None:
    """Raises SamplingError for an id that servers do not accept."""
    if request_id is not None and not _REQUEST_ID.fullmatch(request_id):
        raise SamplingError(
            f"request_id is {request_id!r}; use up to 128 letters, digits and ._:/@+=-",
            code=grpc.StatusCode.INVALID_ARGUMENT,
        )


def decode_batch(
    response: sampling_pb2.SampleBinaryImagesResponse, *, expected_index: int, target: str
) -> ImageBatch:
    """The images of a response. Raises SamplingError unless it is whole and begins at `expected_index`."""
    shape = response.image_shape
    image_shape = (shape.channels, shape.height, shape.width)
    count, pixels = response.image_count, math.prod(image_shape)
    packed = np.frombuffer(response.packed_images, np.uint8)
    is_whole = packed.size == count * -(-pixels // 8) and len(response.labels) in {0, count}
    if response.first_index != expected_index or count < 1 or not is_whole:
        sent = f"sent {count} images from {response.first_index} in {packed.size} bytes"
        raise data_loss(target, expected_index, f"{sent} where image {expected_index} was next")
    probabilities = None
    if response.probabilities:
        probabilities = np.frombuffer(response.probabilities, "<f4").reshape(count, *image_shape)
    return ImageBatch(
        model=response.model,
        revision=response.revision,
        seed=response.seed,
        first_index=response.first_index,
        image_shape=image_shape,
        packed_images=packed.reshape(count, -1),
        probabilities=probabilities,
        labels=np.array(response.labels, np.int32) if response.labels else None,
    )


def decode_model(served: sampling_pb2.ServedModel) -> ModelInfo:
    manifest = served.model
    shape = manifest.image_shape
    return ModelInfo(
        name=manifest.name,
        version=served.version or None,
        revision=served.revision,
        is_default=served.is_default,
        neuron=model_pb2.Neuron.Name(manifest.neuron).removeprefix("NEURON_").lower(),
        binarization=model_pb2.Binarization.Name(manifest.binarization).removeprefix("BINARIZATION_").lower(),
        network=manifest.network,
        image_shape=(shape.channels, shape.height, shape.width),
        latent_size=manifest.latent_size,
        slope=manifest.slope,
        dataset=manifest.dataset,
        run=manifest.training_run.name,
        step=manifest.training_run.step,
        epoch=manifest.training_run.epoch,
        metrics=dict(manifest.metrics),
        classes=tuple(manifest.classes),
    )


def decode_models(response: sampling_pb2.ListModelsResponse) -> ModelList:
    """The models of a server, the files that it cannot serve and its limits."""
    return ModelList(
        models=tuple(map(decode_model, response.models)),
        failures=tuple(ModelFailure(model=failure.model, reason=failure.reason) for failure in response.failures),
        limits=Limits(**{name: getattr(response.limits, name) for name in _LIMITS}),
    )
