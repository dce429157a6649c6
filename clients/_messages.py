"""Requests and responses: what goes over the wire, as what the clients take and return."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import grpc
import numpy as np

from bgan.v1 import model_pb2, sampling_pb2

from ._errors import SamplingError
from ._types import ImageBatch, Limits, ModelFailure, ModelInfo

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/@+=-]{1,128}")


def build_request(
    *,
    image_count: int,
    seed: int | None,
    model: str,
    version: int | None = None,
    first_index: int,
    batch_size: int | None,
    include_probabilities: bool,
    labels: Sequence[int] = (),
) -> sampling_pb2.SampleBinaryImagesRequest:
    """The request of a stream. Raises SamplingError where a number does not fit its field."""
    try:
        return sampling_pb2.SampleBinaryImagesRequest(
            model=model,
            version=version or 0,
            image_count=image_count,
            seed=seed,
            first_index=first_index,
            batch_size=batch_size or 0,
            include_probabilities=include_probabilities,
            labels=labels,
        )
    except ValueError as error:
        raise SamplingError(
            f"a number is out of range ({error}); counts, seeds and indices end at 2^63 - 1, labels at 2^31 - 1",
            code=grpc.StatusCode.INVALID_ARGUMENT,
        ) from error


def check_request_id(request_id: str | None) -> None:
    """Raises SamplingError where it is none that servers take."""
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
        raise SamplingError(
            f"{target}: the server sent {count} images from {response.first_index} in {packed.size} bytes "
            f"where image {expected_index} was next; is it another version?",
            code=grpc.StatusCode.DATA_LOSS,
            next_index=expected_index,
        )
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
    """What a server says of a model."""
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


def decode_failure(failure: sampling_pb2.ModelFailure) -> ModelFailure:
    """What a server says of a file that it cannot serve."""
    return ModelFailure(model=failure.model, reason=failure.reason)


def decode_limits(limits: sampling_pb2.Limits) -> Limits:
    """The limits that a server holds requests to."""
    return Limits(
        max_image_count=limits.max_image_count,
        max_batch_size=limits.max_batch_size,
        max_message_bytes=limits.max_message_bytes,
    )
