"""Streams of images as a data set of torch: `from bgan.clients.torch import StreamDataset`. Needs torch."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.distributed
from torch.utils.data import IterableDataset, get_worker_info

from ._errors import InvalidRequestError
from ._messages import check_integer
from ._source import StreamSource, Target
from ._types import ImageBatch, Labels

_END_INDEX = 2**63 - 1


class StreamDataset(IterableDataset[dict[str, Any]]):
    """Images of a stream, shared out over a DataLoader's workers and the ranks of torch.distributed.

    >>> dataset = StreamDataset("localhost:50051", image_count=60_000, seed=1, block_size=64)
    >>> for batch in DataLoader(dataset, batch_size=64, num_workers=2):
    ...     batch["image"]  # uint8 [64, channels, height, width] of 0 and 1

    Each image is a dict: `image`, uint8 [channels, height, width]; `index`, its place in the stream; of
    class-conditional models `label`, its class; and `probabilities`, float32 as `image`, if they were asked for.

    Blocks of consecutive images go to ranks and workers by turns, so that together they read each image once.
    Where `block_size` is the loader's batch_size, step t of rank r is block t * ranks + r, for any number of
    workers. So training resumes with `first_index` moved by steps * ranks * block_size; or by `state_dict`, which
    torchdata's StatefulDataLoader takes and gives back in each worker.

    A DataLoader forks its workers on Linux. Where gRPC was used before, as by a client, start them by
    multiprocessing_context="forkserver".
    """

    def __init__(
        self,
        target: Target,
        *,
        seed: int,
        image_count: int | None = None,
        first_index: int = 0,
        block_size: int = 256,
        model: str | None = None,
        version: int | None = None,
        revision: str | None = None,
        labels: Labels = (),
        include_probabilities: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        """Describe a data set; each iteration connects, and reads the same images again.

        target: a server's address, or those of several; or a function that makes a SamplingClient, with TLS or a
            token, say. It is called in each worker: one of a module, or a functools.partial of it.
        image_count: how many images all ranks read together; None: without end.
        block_size: images of one call, which one worker reads.
        seed, first_index, model, version, labels, include_probabilities: as of `sample_binary_images`.
        revision: what all images must come from. Each worker keeps to that of its first image; name it where a
            model may be replaced while workers start.
        rank, world_size: of this process; None: those of torch.distributed when the iteration or its workers
            start, or else 0 of 1.

        Raises InvalidRequestError, which names an argument that cannot be meant.
        """
        super().__init__()
        self._source = StreamSource(
            target=target,
            seed=seed,
            model=model,
            version=version,
            revision=revision,
            labels=labels,
            include_probabilities=include_probabilities,
        )
        self._first = _at_least("first_index", first_index, 0)
        count = _END_INDEX - self._first if image_count is None else _at_least("image_count", image_count, 1)
        self._is_endless, self._end = image_count is None, self._first + count
        _at_least("first_index + image_count", self._end, 1)
        self._block = _at_least("block_size", block_size, 1)
        if (rank is None) != (world_size is None) or not 0 <= (rank or 0) < (world_size or 1):
            raise ValueError(f"rank {rank} of world_size {world_size} is none; give both, or neither")
        self._ranks = None if rank is None or world_size is None else (rank, world_size)
        self._inherited_rank = (0, 1)
        self._next_index: int | None = None
        self._revision: str | None = None
        self._resumed: dict[str, Any] | None = None

    def __repr__(self) -> str:
        images = "endless" if self._is_endless else f"image_count={self._end - self._first}"
        source = self._source
        named = "" if source.model is None else f", model={source.model!r}"
        target = "a function" if callable(source.target) else repr(source.target)  # its arguments may be secret
        return f"StreamDataset({target}, seed={source.seed}, {images}, first_index={self._first}{named})"

    def __iter__(self) -> Iterator[dict[str, Any]]:
        shard, shard_count = self._shard()
        start, source = self._resume(shard, shard_count)
        for batch in source.batches(self._ranges(start, shard, shard_count)):
            self._revision = batch.revision
            for row in _rows(batch):
                self._next_index = row["index"] + 1
                yield row
        self._next_index = self._end

    def __len__(self) -> int:
        """How many images this rank reads."""
        if self._is_endless:
            raise TypeError("a StreamDataset without an image_count has no length")
        rank, world_size = self._rank()
        full, rest = divmod(self._end - self._first, self._block)
        own = len(range(rank, full, world_size)) * self._block
        return own + (rest if full % world_size == rank else 0)

    def state_dict(self) -> dict[str, Any]:
        """Where this process, or worker, is in its share, and of which revision, for `load_state_dict`."""
        shard, shard_count = self._shard()
        return {
            "next_index": self._next_index,
            "revision": self._revision,
            "shard": shard,
            "shard_count": shard_count,
            "images": [self._source.seed, self._first, self._end, self._block],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on where a data set like this one was. Raises ValueError for another state."""
        if state.get("images") != self.state_dict()["images"]:
            raise ValueError(
                "the state is of another seed, first_index, image_count or block_size; make the data set as before"
            )
        self._resumed = state

    def __getstate__(self) -> dict[str, Any]:
        # Workers that are spawned know nothing of the ranks.
        return {**self.__dict__, "_inherited_rank": self._rank()}

    def _resume(self, shard: int, shard_count: int) -> tuple[int, StreamSource]:
        """The first image that an iteration of this share reads, and what of."""
        state, self._resumed, self._next_index = self._resumed, None, None
        if state is None or state["next_index"] is None:
            return self._first, self._source
        if (state["shard"], state["shard_count"]) != (shard, shard_count):
            raise ValueError(
                f"the state is of share {state['shard']} of {state['shard_count']}, and this is {shard} of "
                f"{shard_count}; use as many workers and ranks as before, or move first_index"
            )
        self._next_index, self._revision = int(state["next_index"]), state["revision"]
        return self._next_index, replace(self._source, revision=self._revision)

    def _ranges(self, start: int, shard: int, shard_count: int) -> Iterator[tuple[int, int]]:
        """The first index and count of what is left of each block of a share."""
        block = self._block
        for first in range(self._first + shard * block, self._end, shard_count * block):
            end = min(first + block, self._end)
            if end > start:
                yield max(first, start), end - max(first, start)

    def _shard(self) -> tuple[int, int]:
        """Which share of the blocks this process reads, and of how many: ranks take turns first, then workers."""
        rank, world_size = self._rank()
        worker = get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return number * world_size + rank, count * world_size

    def _rank(self) -> tuple[int, int]:
        if self._ranks is not None:
            return self._ranks
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return self._inherited_rank


def _at_least(name: str, value: Any, least: int) -> int:
    """A whole number. Raises InvalidRequestError."""
    number = check_integer(name, value)
    if number < least:
        raise InvalidRequestError.of(name, f"is {number}; use at least {least}")
    return number


def _rows(batch: ImageBatch) -> Iterator[dict[str, Any]]:
    columns: dict[str, Any] = {"image": torch.from_numpy(batch.images)}
    if batch.labels is not None:
        columns["label"] = batch.labels.tolist()
    if batch.probabilities is not None:
        columns["probabilities"] = torch.tensor(batch.probabilities)
    for row in range(len(batch)):
        yield {"index": batch.first_index + row, **{name: values[row] for name, values in columns.items()}}
