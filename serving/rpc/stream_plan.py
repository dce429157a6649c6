"""Streams of images: a checked request, cut into batches."""

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bgan.v1 import sampling_pb2 as pb

from ..call_context import CallContext
from ..config.settings import ServerSettings
from ..errors import DeadlinePassedError, InvalidRequestError
from ..models.engine import Engine, ImageBatch
from ..models.noise import INDEX_END, ImageRange
from ..telemetry.metrics import NO_METRICS, Metrics
from .pool import Steps

_CLASSES_NAMED = 20  # in a message, of more
_MAX_LABELS = 65_536  # of one request: they are checked one by one
_LABEL_BYTES = 5  # the most that a label takes
_MESSAGE_OVERHEAD_BYTES = 512  # names, numbers and tags around the payload, generously


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """All that decides a stream, taken from a request that was found valid."""

    engine: Engine
    images: ImageRange
    """All images of the stream."""
    batch_size: int
    """Images a response; the last one may have fewer."""
    first_batch_size: int
    """Images of the first response; later ones double up to `batch_size`."""
    with_probabilities: bool
    deadline: float | None
    """When its caller no longer waits, on the monotonic clock; None: never."""

    @property
    def batch_bytes(self) -> int:
        """About the most bytes that one response takes."""
        return self.batch_size * _image_bytes(self.engine, self.with_probabilities)

    def batches(self) -> Iterator[tuple[int, int]]:
        """(first index, image count) of each batch, in order."""
        first_index, size = self.images.first_index, self.first_batch_size
        end = first_index + self.images.count
        while first_index < end:
            count = min(size, end - first_index)
            yield first_index, count
            first_index += count
            size = min(2 * size, self.batch_size)

    @property
    def is_one_batch(self) -> bool:
        """Whether a single response of nothing but images is all of it."""
        return self.images.count <= self.first_batch_size and not self.with_probabilities

    def response(
        self, first_index: int, count: int, metrics: Metrics = NO_METRICS
    ) -> Steps[pb.SampleBinaryImagesResponse]:
        """Compute one batch, a step for each inference. Raises DeadlinePassedError if it is too late."""
        check_deadline(self.deadline)
        seed, labels, both = self.images.seed, self.images.labels, self.with_probabilities
        batch = yield from self.engine.sample_in_steps(seed, first_index, count, labels, both)
        if batch.part_runs:
            metrics.routed(self.engine.manifest.name, count, batch.part_runs)
        return self.encode(first_index, batch)

    def encode(self, first_index: int, batch: ImageBatch) -> pb.SampleBinaryImagesResponse:
        """The response that carries a computed batch."""
        engine = self.engine
        return pb.SampleBinaryImagesResponse(
            model=engine.manifest.name,
            revision=engine.revision,
            seed=self.images.seed,
            first_index=first_index,
            image_count=len(batch.packed_images) // engine.packed_bytes,
            image_shape=engine.manifest.image_shape,
            packed_images=batch.packed_images,
            probabilities=batch.probabilities,
            version=engine.version,
            labels=batch.labels,
        )


def plan_stream(
    request: pb.SampleBinaryImagesRequest,
    engine: Engine,
    settings: ServerSettings,
    *,
    deadline: float | None = None,
) -> StreamPlan:
    """Check a request against the limits. Raises InvalidRequestError with every field that is out of range."""
    count, first_index, seed = request.image_count, request.first_index, request.seed
    image_bytes = _image_bytes(engine, request.include_probabilities)
    most = largest_batch(image_bytes, _MESSAGE_OVERHEAD_BYTES, settings)
    if most < 1:
        raise InvalidRequestError(
            {"include_probabilities": f"one image takes {image_bytes} bytes, more than a message may have"}
        )
    violations = {}
    if not 1 <= count <= settings.max_image_count:
        violations["image_count"] = f"is {count}; ask for 1 to {settings.max_image_count} images"
    if seed < 0:
        violations["seed"] = f"is {seed}; use 0 to 2^63 - 1, or none to have one drawn"
    if first_index < 0:
        violations["first_index"] = f"is {first_index}; it must be at least 0"
    elif first_index + max(count, 0) > INDEX_END:
        violations["first_index"] = "first_index + image_count exceeds 2^63 - 1; start earlier or ask for fewer"
    if problem := _label_problem(request.labels, engine):
        violations["labels"] = problem
    if not 0 <= request.batch_size <= most:
        violations["batch_size"] = f"is {request.batch_size}; use 1 to {most}, or 0 for the server's choice"
    if violations:
        raise InvalidRequestError(violations)
    if not request.HasField("seed"):
        seed = secrets.randbits(63)
    preferred = engine.preferred_batch_size(with_probabilities=request.include_probabilities)
    batch_size = request.batch_size or min(preferred, most)
    return StreamPlan(
        engine,
        ImageRange(seed, first_index, count, tuple(request.labels)),
        batch_size=batch_size,
        # Left to choose, the server begins small: the first images come at once, and a stream that is
        # opened and not read holds little.
        first_batch_size=request.batch_size or min(engine.run_rows, batch_size),
        with_probabilities=request.include_probabilities,
        deadline=deadline,
    )


def deadline_of(context: CallContext) -> float | None:
    """When a call must be answered, on the monotonic clock; None: no limit."""
    seconds = context.time_remaining()
    return None if seconds is None else time.monotonic() + seconds


def check_deadline(deadline: float | None) -> None:
    """Raises DeadlinePassedError if it is past: nothing is computed for a caller who no longer waits for it."""
    if deadline is not None and time.monotonic() > deadline:
        raise DeadlinePassedError("the deadline of the call passed before its images were computed")


def largest_batch(row_bytes: int, overhead_bytes: int, settings: ServerSettings) -> int:
    """The most rows that one message may carry beside its overhead; 0: it cannot hold even one."""
    return min(settings.max_batch_size, (settings.max_message_bytes - overhead_bytes) // row_bytes)


def _label_problem(labels: Sequence[int], engine: Engine) -> str | None:
    name, class_count = engine.manifest.name, engine.class_count
    if labels and not class_count:
        return f"the model {name!r} is not class-conditional; leave labels out"
    if len(labels) > _MAX_LABELS:
        return f"has {len(labels)} entries; send at most {_MAX_LABELS}, and split longer streams"
    wrong = next((label for label in labels if not 0 <= label < class_count), None)
    if wrong is None:
        return None
    names = ", ".join(engine.manifest.classes[:_CLASSES_NAMED]) + (", ..." if class_count > _CLASSES_NAMED else "")
    return f"has {wrong}; the classes of {name!r} are 0 to {class_count - 1}, {names}"


def _image_bytes(engine: Engine, with_probabilities: bool) -> int:
    image_bytes = engine.packed_bytes + (engine.probability_bytes if with_probabilities else 0)
    return image_bytes + (_LABEL_BYTES if engine.class_count else 0)
