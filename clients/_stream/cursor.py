"""Where a stream is, what belongs to it, and what to ask for next. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from bgan.v1 import sampling_pb2

from .._errors import RevisionChangedError, SamplingError
from .._messages import decode_batch
from .._types import ImageBatch


@dataclass(slots=True)
class Origin:
    """What all images of a stream come from; what is None is known from the first batch on."""

    revision: str | None = None
    model: str | None = None
    seed: int | None = None
    image_bytes: int | None = None

    def check(self, batch: ImageBatch, target: str) -> None:
        """Take `batch` in. Raises SamplingError if it is of another stream."""
        if self.revision is not None and batch.revision != self.revision:
            raise RevisionChangedError(
                target,
                model=batch.model,
                revision=batch.revision,
                expected_revision=self.revision,
                next_index=batch.first_index,
            )
        if self.seed is not None and batch.seed != self.seed:
            raise SamplingError(
                f"{target}: the server sent images of seed {batch.seed} where {self.seed} was asked for",
                code=grpc.StatusCode.DATA_LOSS,
                next_index=batch.first_index,
            )
        self.revision, self.model, self.seed = batch.revision, batch.model, batch.seed
        self.image_bytes = batch.nbytes // len(batch)


class Cursor:
    """The place in a stream, or in a piece of one."""

    def __init__(
        self, request: sampling_pb2.SampleBinaryImagesRequest, origin: Origin, request_id: str | None = None
    ) -> None:
        self.next_index = request.first_index
        """The index of the first image that did not arrive."""
        self.request_id = request_id
        """What the servers are to call the requests; None: as they like."""
        self._request = request
        self._end = request.first_index + request.image_count
        self._origin = origin

    @property
    def is_complete(self) -> bool:
        """Whether the last image arrived."""
        return self._request.image_count > 0 and self.next_index == self._end

    def rest(self) -> sampling_pb2.SampleBinaryImagesRequest:
        """The request of what is left, from the same model, revision and seed as what arrived."""
        request = sampling_pb2.SampleBinaryImagesRequest()
        request.CopyFrom(self._request)
        request.first_index = self.next_index
        request.image_count = self._end - self.next_index
        if self._origin.seed is not None:
            request.seed = self._origin.seed
        if self._origin.model is not None:
            request.model = self._origin.model
        if self._origin.revision is not None:
            request.revision = self._origin.revision
        return request

    def accept(self, response: sampling_pb2.SampleBinaryImagesResponse, target: str) -> ImageBatch:
        """The next batch. Raises SamplingError if it does not follow or is of another stream."""
        batch = decode_batch(response, expected_index=self.next_index, target=target)
        if batch.next_index > self._end:
            raise self._data_loss(target, f"sent images to {batch.next_index}, more than were asked for")
        self._origin.check(batch, target)
        self.next_index = batch.next_index
        return batch

    def check_complete(self, target: str) -> None:
        """Raises SamplingError unless the last image arrived."""
        if not self.is_complete:
            raise self._data_loss(target, f"ended the stream before image {self.next_index}")

    def _data_loss(self, target: str, text: str) -> SamplingError:
        return SamplingError(
            f"{target}: the server {text}; is it another version?",
            code=grpc.StatusCode.DATA_LOSS,
            next_index=self.next_index,
        )
