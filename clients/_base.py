"""What the blocking and the asyncio client share: everything but I/O."""

from __future__ import annotations

import enum
import json
import math
from dataclasses import dataclass
from typing import Final

import grpc
import numpy as np

from bgan.v1 import model_pb2, sampling_pb2

from ._errors import SamplingError
from ._types import ImageBatch, Limits, ModelInfo

DEFAULT_TIMEOUT_SECONDS = 10.0
STREAM_SECONDS_PER_IMAGE = 0.01
_SERVICE = "bgan.v1.SamplingService"
_RECEIVE_BYTES_AT_MOST = 64 * 1024 * 1024


class _Unset(enum.Enum):
    """Tells a timeout that was not given from None, which means none at all."""

    UNSET = enum.auto()


UNSET: Final = _Unset.UNSET
Timeout = float | None | _Unset


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How a call is tried again when the server is unavailable; a stream only before its first batch."""

    attempts: int = 4
    """Tries in all, from 1 (never again) to 5 (the most that gRPC makes)."""
    initial_backoff_seconds: float = 0.1
    """The longest wait before the second try; later ones double."""
    max_backoff_seconds: float = 2.0
    """The longest wait before any try."""

    def service_config(self) -> str:
        """The policy as a gRPC service config."""
        method: dict[str, object] = {"name": [{"service": _SERVICE}]}
        if self.attempts > 1:
            method["retryPolicy"] = {
                "maxAttempts": self.attempts,
                "initialBackoff": f"{self.initial_backoff_seconds}s",
                "maxBackoff": f"{self.max_backoff_seconds}s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            }
        return json.dumps({"methodConfig": [method]})


class BaseClient:
    """Settings, requests and decoding."""

    def __init__(
        self,
        target: str,
        *,
        timeout_seconds: float | None = DEFAULT_TIMEOUT_SECONDS,
        retry: RetryPolicy | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """Make a client; it connects with its first call.

        target: the server's address, such as "localhost:50051".
        timeout_seconds: how long a call may take; a stream gets 10 ms more for each image. None: no limit.
        retry: how to try again while the server is unavailable; RetryPolicy() unless given.
        credentials: for TLS; None: plaintext.
        """
        self.target = target
        self._timeout_seconds = timeout_seconds
        self._credentials = credentials
        self._options = [
            ("grpc.service_config", (retry or RetryPolicy()).service_config()),
            ("grpc.enable_retries", 1),
            ("grpc.max_receive_message_length", _RECEIVE_BYTES_AT_MOST),
        ]

    def _timeout(self, given: Timeout, image_count: int = 0) -> float | None:
        if given is not UNSET:
            return given
        if self._timeout_seconds is None:
            return None
        return self._timeout_seconds + STREAM_SECONDS_PER_IMAGE * image_count


def build_request(
    *,
    image_count: int,
    seed: int | None,
    model: str,
    first_index: int,
    batch_size: int | None,
    include_probabilities: bool,
) -> sampling_pb2.SampleBinaryImagesRequest:
    """The request of a stream. Raises SamplingError where a number does not fit its field."""
    try:
        return sampling_pb2.SampleBinaryImagesRequest(
            model=model,
            image_count=image_count,
            seed=seed,
            first_index=first_index,
            batch_size=batch_size or 0,
            include_probabilities=include_probabilities,
        )
    except ValueError as error:
        raise SamplingError(
            f"a number is out of range ({error}); counts, seeds and indices end at 2^63 - 1",
            code=grpc.StatusCode.INVALID_ARGUMENT,
        ) from error


def decode_batch(response: sampling_pb2.SampleBinaryImagesResponse, *, expected_index: int) -> ImageBatch:
    """The images of a response. Raises SamplingError unless it is whole and begins at `expected_index`."""
    shape = response.image_shape
    image_shape = (shape.channels, shape.height, shape.width)
    count, pixels = response.image_count, math.prod(image_shape)
    packed = np.frombuffer(response.packed_images, np.uint8)
    if response.first_index != expected_index or count < 1 or packed.size != count * -(-pixels // 8):
        raise SamplingError(
            f"the server sent {count} images from {response.first_index} in {packed.size} bytes where image "
            f"{expected_index} was next; is it another version?",
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
    )


def decode_model(served: sampling_pb2.ServedModel) -> ModelInfo:
    """What a server says of a model."""
    manifest = served.model
    shape = manifest.image_shape
    return ModelInfo(
        name=manifest.name,
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
    )


def decode_limits(limits: sampling_pb2.Limits) -> Limits:
    """The limits that a server holds requests to."""
    return Limits(
        max_image_count=limits.max_image_count,
        max_batch_size=limits.max_batch_size,
        max_message_bytes=limits.max_message_bytes,
    )
