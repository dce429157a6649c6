"""Where a stream is, what belongs to it, and what to ask for next. No I/O."""

from dataclasses import dataclass, replace

from bgan.v1 import sampling_pb2

from .._errors import RevisionChangedError, data_loss
from .._messages import SampleRequest, decode_batch
from .._types import ImageBatch


@dataclass(slots=True)
class StreamIdentity:
    """What all images of a stream have in common: at first what was asked for, then what the first batch says."""

    revision: str | None
    model: str
    seed: int | None
    image_bytes: int | None = None

    def check(self, batch: ImageBatch, target: str) -> None:
        """Learn from `batch`. Raises SamplingError if it is from another stream."""
        if self.revision is not None and batch.revision != self.revision:
            raise RevisionChangedError(
                target,
                model=batch.model,
                revision=batch.revision,
                expected_revision=self.revision,
                next_index=batch.first_index,
            )
        if self.seed is not None and batch.seed != self.seed:
            text = f"sent images of seed {batch.seed} where {self.seed} was asked for"
            raise data_loss(target, batch.first_index, text)
        self.revision, self.model, self.seed = batch.revision, batch.model, batch.seed
        self.image_bytes = batch.nbytes // len(batch)


class Cursor:
    """The position in a stream, or in a shard of one that shares the stream's `identity`."""

    def __init__(self, request: SampleRequest, identity: StreamIdentity | None = None) -> None:
        self.next_index = request.first_index
        """The index of the first image that did not arrive."""
        self.request_id = request.request_id
        """The id of the calls in the servers' logs; None: the servers' choice."""
        self._request = request
        self._identity = identity or StreamIdentity(request.revision, request.model, request.seed)

    @property
    def is_complete(self) -> bool:
        """Whether the last image arrived."""
        return self._request.image_count > 0 and self.next_index == self._request.end_index

    def rest(self) -> sampling_pb2.SampleBinaryImagesRequest:
        """The request for what is left, from the same model, revision and seed as what arrived."""
        return replace(
            self._request,
            first_index=self.next_index,
            image_count=self._request.end_index - self.next_index,
            revision=self._identity.revision,
            model=self._identity.model,
            seed=self._identity.seed,
        ).message()

    def accept(self, response: sampling_pb2.SampleBinaryImagesResponse, target: str) -> ImageBatch:
        """The next batch. Raises SamplingError if it does not follow or is from another stream."""
        batch = decode_batch(response, expected_index=self.next_index, target=target)
        if batch.next_index > self._request.end_index:
            text = f"sent images to {batch.next_index}, more than were asked for"
            raise data_loss(target, self.next_index, text)
        self._identity.check(batch, target)
        self.next_index = batch.next_index
        return batch

    def check_complete(self, target: str) -> None:
        """Raises SamplingError unless the last image arrived."""
        if not self.is_complete:
            raise data_loss(target, self.next_index, f"ended the stream before image {self.next_index}")
