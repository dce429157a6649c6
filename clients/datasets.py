"""Streams of images as a data set of Hugging Face: `from bgan.clients.datasets import stream_dataset`.

Needs datasets.
"""

from collections.abc import Iterator
from typing import Any

import datasets

from ._messages import check_integer
from ._source import StreamSource, Target
from ._types import Labels


def stream_dataset(
    target: Target,
    *,
    image_count: int,
    seed: int,
    first_index: int = 0,
    shard_count: int = 64,
    model: str | None = None,
    version: int | None = None,
    labels: Labels = (),
    include_probabilities: bool = False,
) -> datasets.IterableDataset:
    """Images of a stream as an IterableDataset, which `datasets` shuffles, splits over ranks and resumes.

    target, and the others: as of `bgan.clients.torch.StreamDataset`.
    shard_count: consecutive parts that workers and `datasets.distributed.split_dataset_by_node` share out; best a
        multiple of workers * ranks.

    Its columns are `image`, uint8 [channels, height, width] of 0 and 1, `index`, its place in the stream, of
    class-conditional models `label`, and `probabilities` if they were asked for. The model is looked up at once:
    all images are of its revision. Raises a SamplingError.
    """
    count, shards = check_integer("image_count", image_count), check_integer("shard_count", shard_count)
    if min(count, shards) < 1:
        raise ValueError(f"image_count is {count} and shard_count {shards}; use at least 1")
    source, info = StreamSource(
        target=target,
        seed=seed,
        model=model,
        version=version,
        labels=labels,
        include_probabilities=include_probabilities,
    ).look_up()
    size = -(-count // shards)
    ranges = [(first_index + start, min(size, count - start)) for start in range(0, count, size)]
    image = datasets.Array3D(info.image_shape, "uint8")
    features = {"image": image, "index": datasets.Value("int64")}
    if info.classes:
        features["label"] = datasets.ClassLabel(names=list(info.classes))
    if include_probabilities:
        features["probabilities"] = datasets.Array3D(info.image_shape, "float32")
    return datasets.IterableDataset.from_generator(
        _examples, features=datasets.Features(features), gen_kwargs={"ranges": ranges, "source": source}
    )


def _examples(ranges: list[tuple[int, int]], source: StreamSource) -> Iterator[dict[str, Any]]:
    """The images of some ranges, of which `datasets` gives each worker its own."""
    for batch in source.batches(ranges):
        columns: dict[str, Any] = {"image": batch.images}
        if batch.labels is not None:
            columns["label"] = batch.labels.tolist()
        if batch.probabilities is not None:
            columns["probabilities"] = batch.probabilities
        for row in range(len(batch)):
            yield {"index": batch.first_index + row, **{name: values[row] for name, values in columns.items()}}
