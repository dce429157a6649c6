"""A stream as what data sets of other libraries read, in any process: a description that can be pickled."""

import atexit
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any
from weakref import WeakSet

from ._client import SamplingClient
from ._errors import InvalidRequestError
from ._messages import SampleRequest, checked_request, class_numbers
from ._types import ImageBatch, Labels, ModelInfo

Target = str | Sequence[str] | Callable[[], SamplingClient]
"""The address of a server, those of several, or what makes a client, in each process: a function of a module."""


_unfinished: WeakSet[Generator[ImageBatch, None, None]] = WeakSet()


@atexit.register
def _close_unfinished() -> None:
    """End the streams that a program keeps to its end, while the modules that close their clients are there."""
    for batches in list(_unfinished):
        with suppress(ValueError):  # another thread is in it
            batches.close()


@dataclass(frozen=True, kw_only=True)
class StreamSource:
    """All that decides a stream's images. Raises InvalidRequestError, which names a field that cannot be sent."""

    target: Target
    seed: int
    model: str | None = None
    version: int | None = None
    revision: str | None = None
    labels: Labels = ()
    include_probabilities: bool = False

    def __post_init__(self) -> None:
        if self.seed is None:
            raise InvalidRequestError.of("seed", "is None; name one, so that all processes read the same stream")
        self._request()

    def look_up(self) -> tuple["StreamSource", ModelInfo]:
        """The same of the revision that the server has now, with numbers for classes; and that model.

        Raises a SamplingError.
        """
        with self._connect() as client:
            return self._pinned(client)

    def batches(self, ranges: Iterable[tuple[int, int]]) -> Iterator[ImageBatch]:
        """The images of ranges (first index, count), all of one revision. Raises a SamplingError."""
        batches = self._batches(ranges)
        _unfinished.add(batches)
        return batches

    def _batches(self, ranges: Iterable[tuple[int, int]]) -> Generator[ImageBatch, None, None]:
        with self._connect() as client:
            has_names = any(isinstance(label, str) for label in self._request().labels)
            source = self._pinned(client)[0] if has_names else self  # once, not with each range
            options = source._options()
            for first_index, count in ranges:
                for batch in client.sample_binary_images(image_count=count, first_index=first_index, **options):
                    options |= {"model": batch.model, "revision": batch.revision}
                    yield batch

    def _pinned(self, client: SamplingClient) -> tuple["StreamSource", ModelInfo]:
        info = client.get_model(self.model, version=self.version)
        labels = self._request().labels
        numbers = class_numbers(labels, info) if labels else ()
        return replace(self, model=info.name, revision=self.revision or info.revision, labels=numbers), info

    def _connect(self) -> SamplingClient:
        return self.target() if callable(self.target) else SamplingClient(self.target)

    def _request(self) -> SampleRequest:
        """A request with these options. Raises InvalidRequestError."""
        return checked_request(image_count=1, **self._options())

    def _options(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "target"}
