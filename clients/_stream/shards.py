"""One stream cut into pieces for several servers, and laid together again in order. No I/O and no locks."""

from __future__ import annotations

import heapq
import logging
import secrets
from collections import deque

from bgan.v1 import sampling_pb2

from .._errors import SamplingError
from .._retry import is_transient
from .._types import ImageBatch
from .cursor import Cursor, Origin

_IMAGES_AT_FIRST = 512  # until a batch has told how large an image is
_IMAGES_AT_MOST = 8192
_BYTES_AT_MOST = 4 * 1024 * 1024
_INDEX_END = 2**63 - 1
_log = logging.getLogger(__name__)


class Piece:
    """Consecutive images that one server makes; what is left of it can be handed to another."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        """Where the piece is."""
        self.batches: deque[ImageBatch] = deque()
        """What arrived and was not taken yet."""

    def __lt__(self, other: Piece) -> bool:
        return self.cursor.next_index < other.cursor.next_index


class Pieces:
    """The pieces of a stream: which are free, which are being made, and what arrived.

    Few pieces are out at a time, so memory is bounded. Servers never wait inside of a piece and always
    take the earliest free one, so the piece that is next in line is always made.
    """

    def __init__(
        self,
        request: sampling_pb2.SampleBinaryImagesRequest,
        *,
        server_count: int,
        revision: str | None,
        request_id: str | None = None,
    ) -> None:
        self._request = sampling_pb2.SampleBinaryImagesRequest()
        self._request.CopyFrom(request)
        if not request.HasField("seed"):
            self._request.seed = secrets.randbits(63)
        self._origin = Origin(revision=revision)
        self._request_id = request_id
        self._server_count = server_count
        self._pieces_at_most = 2 * server_count + 1
        self._share = -(-request.image_count // server_count)
        self._cut_index = request.first_index
        self._end = request.first_index + request.image_count
        self._free: list[Piece] = []
        self._line: deque[Piece] = deque()
        self.next_index = request.first_index
        """The index of the image that `pop` gives next."""
        self.error: Exception | None = None
        """Why the stream ended early."""

    @property
    def is_ended(self) -> bool:
        """Whether servers have nothing more to do: all images arrived, or the stream failed."""
        if self.error is not None:
            return True
        return self._cut_index == self._end and all(piece.cursor.is_complete for piece in self._line)

    @property
    def has_free(self) -> bool:
        """Whether `take` has a piece."""
        return bool(self._free) or (self._cut_index < self._end and len(self._line) < self._pieces_at_most)

    def take(self) -> Piece:
        """The earliest piece that no server is at."""
        if self._free:
            return heapq.heappop(self._free)
        request = sampling_pb2.SampleBinaryImagesRequest()
        request.CopyFrom(self._request)
        request.first_index = self._cut_index
        request.image_count = min(self._piece_size(), self._end - self._cut_index)
        self._cut_index += request.image_count
        piece = Piece(Cursor(request, self._origin, self._request_id))
        self._line.append(piece)
        return piece

    def add(self, piece: Piece, response: sampling_pb2.SampleBinaryImagesResponse, target: str) -> None:
        """A batch of a piece arrived. Raises SamplingError if it does not belong there."""
        piece.batches.append(piece.cursor.accept(response, target))

    def give_back(self, piece: Piece) -> None:
        """Another server may make the rest of a piece."""
        heapq.heappush(self._free, piece)

    def give_up(self, target: str, error: Exception) -> None:
        """A server does no more; the stream fails if none is left, or if it could fare no better elsewhere."""
        self._server_count -= 1
        if self._server_count > 0 and isinstance(error, SamplingError) and is_transient(error):
            _log.warning("%s: stays away; the other servers make its images", target)
        elif self.error is None:
            self.error = error

    @property
    def has_next(self) -> bool:
        """Whether `pop` has a batch."""
        return bool(self._line) and bool(self._line[0].batches)

    def pop(self) -> ImageBatch:
        """The next batch in order."""
        piece = self._line[0]
        batch = piece.batches.popleft()
        self.next_index = batch.next_index
        if piece.cursor.is_complete and not piece.batches:
            self._line.popleft()
        return batch

    def raise_error(self) -> None:
        """Raises what the stream failed with, if it did, with the index to go on from."""
        if isinstance(self.error, SamplingError):
            self.error.next_index = self.next_index
        if self.error is not None:
            raise self.error

    def _piece_size(self) -> int:
        if self._origin.image_bytes is None:
            return min(self._share, _IMAGES_AT_FIRST)
        return max(1, min(self._share, _IMAGES_AT_MOST, _BYTES_AT_MOST // self._origin.image_bytes))


def is_splittable(request: sampling_pb2.SampleBinaryImagesRequest) -> bool:
    """Whether a request can be cut into pieces; a server says best what is wrong with one that cannot."""
    end = request.first_index + request.image_count
    return request.image_count > 0 and request.first_index >= 0 and end <= _INDEX_END
