"""Where a stream is, and one cut into shards for several servers and put together again. No I/O and no locks."""

import logging
import secrets
from collections import deque
from dataclasses import dataclass, field, replace

from bgan.v1 import sampling_pb2

from .._errors import RevisionChangedError, SamplingError, closed_error, data_loss
from .._messages import SampleRequest, decode_batch
from .._retry import is_transient
from .._text import printable
from .._types import ImageBatch

_FIRST_IMAGES = 512  # until a batch has told how large an image is
_MAX_IMAGES = 8192
_MAX_BYTES = 4 * 1024 * 1024
_MAX_INDEX = 2**63 - 1
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class StreamIdentity:
    """What all images of a stream have in common: at first what was asked for, then what the first batch says."""

    revision: str | None
    model: str
    seed: int | None
    image_shape: tuple[int, int, int] | None = None
    has_labels: bool | None = None
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
        for what, expected, sent in (
            ("seed", self.seed, batch.seed),
            ("model", self.model or None, batch.model),
            ("shape", self.image_shape, batch.image_shape),
            ("labels", self.has_labels, batch.labels is not None),
        ):
            if expected is not None and sent != expected:
                text = (
                    f"sent images of {what} {printable(str(sent))} where {printable(str(expected))} was expected"
                )
                raise data_loss(target, batch.first_index, text)
        self.revision, self.model, self.seed = batch.revision, batch.model, batch.seed
        self.image_shape, self.has_labels = batch.image_shape, batch.labels is not None
        self.image_bytes = batch.nbytes // len(batch)


class Cursor:
    """The position in a stream, or in a shard of one that shares the stream's `identity`."""

    def __init__(self, request: SampleRequest, identity: StreamIdentity | None = None) -> None:
        self.next_index = request.first_index
        """The index of the first image that did not arrive."""
        self.request_id = request.request_id
        """The id of the calls in the servers' logs; None: the servers' choice."""
        self._request = request
        self._identity = identity or identity_of(request)

    @property
    def is_complete(self) -> bool:
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
        """The next batch. Raises SamplingError if it does not follow, or is not what was asked for."""
        batch = decode_batch(response, expected_index=self.next_index, target=target)
        if problem := self._unasked(batch, response.version):
            raise data_loss(target, self.next_index, f"sent {problem}")
        self._identity.check(batch, target)
        self.next_index = batch.next_index
        return batch

    def _unasked(self, batch: ImageBatch, version: int) -> str | None:
        """What of a batch is not as the request says."""
        request, left = self._request, self._request.end_index - self.next_index
        if len(batch) > left:
            return f"images to {batch.next_index}, more than were asked for"
        if request.batch_size and len(batch) != min(request.batch_size, left):
            return f"{len(batch)} images in a batch where {request.batch_size} were asked for"
        if request.version and version != request.version:
            return f"version {version} where {request.version} was asked for"
        if request.include_probabilities != (batch.probabilities is not None):
            return "no probabilities" if batch.probabilities is None else "probabilities that were not asked for"
        if request.labels and (batch.labels is None or batch.labels.tolist() != self._labels(len(batch))):
            return "images of other labels than were asked for"
        return None

    def _labels(self, count: int) -> list[int | str]:
        """The labels that the next images have."""
        labels = self._request.labels
        return [labels[index % len(labels)] for index in range(self.next_index, self.next_index + count)]

    def check_complete(self, target: str) -> None:
        """Raises SamplingError unless the last image arrived."""
        if not self.is_complete:
            raise data_loss(target, self.next_index, f"ended the stream before image {self.next_index}")


def identity_of(request: SampleRequest) -> StreamIdentity:
    """What a request says of all its images."""
    has_labels = True if request.labels else None
    return StreamIdentity(request.revision, request.model, request.seed, has_labels=has_labels)


@dataclass(eq=False, slots=True)
class Shard:
    """Consecutive images that one server makes; the rest of a shard can be handed to another server."""

    cursor: Cursor
    """The position in the shard."""
    batches: deque[ImageBatch] = field(default_factory=deque)
    """What arrived and was not read yet."""


class Shards:
    """The shards of a stream: which are free, which are being made, and what arrived.

    Few shards are out at a time, so memory is bounded. Servers never wait inside a shard and always take the
    earliest free one, so the shard that is read next is always made.
    """

    def __init__(self, request: SampleRequest, *, server_count: int) -> None:
        if request.seed is None:
            request = replace(request, seed=secrets.randbits(63))
        self._request = request
        self._identity = identity_of(request)
        self._server_count = server_count
        self._max_shards = 2 * server_count + 1
        self._share = -(-request.image_count // server_count)
        self._cut_index = request.first_index
        self._free: list[Shard] = []
        self._line: deque[Shard] = deque()
        self._next_index = request.first_index
        self._error: Exception | None = None

    @property
    def is_ended(self) -> bool:
        """Whether servers have nothing more to do: all images arrived, or the stream failed."""
        return self._error is not None or self.is_complete

    @property
    def is_complete(self) -> bool:
        """Whether all images arrived."""
        arrived = all(shard.cursor.is_complete for shard in self._line)
        return arrived and self._cut_index == self._request.end_index

    @property
    def has_free(self) -> bool:
        may_cut = self._cut_index < self._request.end_index and len(self._line) < self._max_shards
        return bool(self._free) or may_cut

    def take(self) -> Shard:
        """The earliest shard that no server makes."""
        if self._free:
            shard = min(self._free, key=lambda shard: shard.cursor.next_index)
            self._free.remove(shard)
            return shard
        count = min(self._shard_size(), self._request.end_index - self._cut_index)
        request = replace(self._request, first_index=self._cut_index, image_count=count)
        self._cut_index += count
        shard = Shard(Cursor(request, self._identity))
        self._line.append(shard)
        return shard

    def add(self, shard: Shard, response: sampling_pb2.SampleBinaryImagesResponse, target: str) -> None:
        """A batch of a shard arrived. Raises SamplingError if it does not belong there."""
        shard.batches.append(shard.cursor.accept(response, target))

    def give_back(self, shard: Shard) -> None:
        """Let another server make the rest of a shard."""
        self._free.append(shard)

    def give_up(self, target: str, error: Exception) -> None:
        """A server stops; the stream fails if it was the last, or if no other would do better."""
        self._server_count -= 1
        if self._server_count > 0 and isinstance(error, SamplingError) and is_transient(error):
            _log.warning("%s: stays away; the other servers make its images", target)
        elif self._error is None:
            self._error = error

    @property
    def has_next(self) -> bool:
        return bool(self._line) and bool(self._line[0].batches)

    def pop(self) -> ImageBatch | None:
        """The next batch in order, or None after the last.

        With no batch to come, raises what the stream failed with, or else that the client was closed.
        """
        if not self.has_next:
            if isinstance(self._error, SamplingError):
                self._error.next_index = self._next_index
            if self._error is not None:
                raise self._error
            if not self.is_ended:
                raise closed_error(self._next_index)
            return None
        shard = self._line[0]
        batch = shard.batches.popleft()
        self._next_index = batch.next_index
        if shard.cursor.is_complete and not shard.batches:
            self._line.popleft()
        return batch

    def _shard_size(self) -> int:
        if self._identity.image_bytes is None:
            return min(self._share, _FIRST_IMAGES)
        return max(1, min(self._share, _MAX_IMAGES, _MAX_BYTES // self._identity.image_bytes))


def is_splittable(request: SampleRequest) -> bool:
    """Whether a request can be cut into shards; a server says best what is wrong with one that cannot."""
    return request.image_count > 0 and request.first_index >= 0 and request.end_index <= _MAX_INDEX
