"""Generates any number of images as shards in a store, by processes of this machine or of a Ray cluster.

Which images a shard has follows from the plan alone, so bits depend neither on who makes it nor on how many do.
"""

import json
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from ..config.stores import Store, open_store
from ..errors import GenerationError, Interrupted, ServingError, UsageError
from ..models.engine import Engine
from ..models.providers import CPU
from .bulk_plan import (
    DATA,
    MANIFEST,
    MAX_SHARD_BYTES,
    RECORDS,
    BulkPlan,
    ShardFormat,
    agree_on_plan,
    as_json,
    shard_images,
)
from .console import cores, noted_stop_signals, progress_display, say
from .generate import check_range, wanted_images
from .processes import Made, local_processes
from .shards import ShardJob, describe

_Records = dict[int, dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkRequest:
    """What to generate, where to and by whom. Raises UsageError where a value is out of range.

    Raises ModuleNotFoundError where the format needs a package that is not installed.
    """

    output: str
    """The store: a folder, or any URL that fsspec opens."""
    count: int
    seed: int | None = None
    """The stream's seed, 0 to 2^63 - 1; None: that of the plan in the store, or one is drawn."""
    first_index: int = 0
    labels: tuple[str, ...] = ()
    """As of a GenerationRequest."""
    format: ShardFormat = "parquet"
    shard_images: int | None = None
    """How many images a shard has; None: as the plan in the store says, or about 64 MiB of packed images."""
    workers: int = 0
    """Processes of this machine, one core each; 0: one for each core."""
    ray: str | None = None
    """The address of a Ray cluster that makes the shards; None: this machine does."""
    provider: str = CPU.name
    """What computes the images, on every machine."""

    def __post_init__(self) -> None:
        check_range(self.count, self.seed, self.first_index)
        if self.format == "parquet" and find_spec("pyarrow") is None:
            raise ModuleNotFoundError("no pyarrow", name="pyarrow")
        if self.ray is not None and self.workers:
            raise UsageError("--workers counts processes of this machine; with --ray the cluster decides")


def bulk(engine: Engine, request: BulkRequest, console: Console) -> BulkPlan:
    """Make the shards that are not in the store yet, then the manifest; returns the plan.

    Raises Interrupted after a signal, GenerationError and StoreError; what is whole stays, and the same call
    resumes.
    """
    output = request.output if "://" in request.output else os.path.abspath(request.output)
    store = open_store(output)
    any_seed, any_size = request.seed is None, request.shard_images is None
    plan = agree_on_plan(store, _wanted(engine, request), any_seed=any_seed, any_size=any_size)
    records = _whole_shards(store, plan)
    if records:
        say(console, f"resuming: {len(records):,} of {plan.shard_count:,} shards are whole, seed {plan.spec.seed}")
    elif any_seed:
        say(console, f"seed {plan.spec.seed}, drawn")
    with _makers(engine, plan, output, request) as make:
        try:
            _make_missing(plan, make, records, console)
            _write_manifest(store, plan, records, tuple(engine.manifest.classes))
        except Interrupted:
            raise
        except ServingError as error:
            kept = f"{len(records):,} of {plan.shard_count:,} shards are kept, and the same command resumes"
            raise GenerationError(f"{error}; {kept}") from error
    return plan


def _wanted(engine: Engine, request: BulkRequest) -> BulkPlan:
    spec = wanted_images(
        engine, count=request.count, seed=request.seed, first_index=request.first_index, labels=request.labels
    )
    most = MAX_SHARD_BYTES // spec.packed_bytes
    images = shard_images(spec.packed_bytes, spec.count) if request.shard_images is None else request.shard_images
    if not 1 <= images <= most:
        raise UsageError(
            f"--shard-images is {images}; a shard of {spec.model} has 1 to {most:,} images, since it is in memory "
            "until it is written"
        )
    return BulkPlan(spec=spec, format=request.format, shard_images=images)


def _whole_shards(store: Store, plan: BulkPlan) -> _Records:
    """The records of the shards that are in the store."""
    there = store.names(DATA)
    found = {}
    for name in sorted(store.names(RECORDS)):
        try:
            record = json.loads(store.read(f"{RECORDS}/{name}") or b"")
            shard = record["shard"]
            if (
                plan.record(shard) == f"{RECORDS}/{name}"
                and plan.file(shard) == f"{DATA}/{Path(record['file']).name}"
            ):
                found[shard] = record
        except (ValueError, KeyError, TypeError):
            continue  # it is made again
    return {shard: record for shard, record in found.items() if Path(record["file"]).name in there}


def _makers(
    engine: Engine, plan: BulkPlan, url: str, request: BulkRequest
) -> AbstractContextManager[Callable[[Iterable[int]], Made]]:
    with engine.open_file() as file:
        job = ShardJob(plan, url, file.read(), request.provider)
    if request.ray is None:
        return local_processes(job, request.workers or cores())
    from .cluster import ray_cluster

    return ray_cluster(job, request.ray)


def _make_missing(
    plan: BulkPlan, make: Callable[[Iterable[int]], Made], records: _Records, console: Console
) -> None:
    done = sum(record["image_count"] for record in records.values())
    missing = [shard for shard in range(plan.shard_count) if shard not in records]
    with (
        noted_stop_signals() as received,
        progress_display(console, total=plan.spec.count, done=done) as show,
    ):
        for record in make(missing):
            if record is not None:
                records[record["shard"]] = record
                done += record["image_count"]
                show(done)
            if number := received():
                raise Interrupted(
                    f"{number.name}: stopped with {len(records):,} of {plan.shard_count:,} shards whole; "
                    "the same command resumes",
                    exit_code=128 + number,
                )


def _write_manifest(store: Store, plan: BulkPlan, records: _Records, classes: tuple[str, ...]) -> None:
    shards = [records[shard] for shard in range(plan.shard_count)]
    content = {**plan.to_dict(), **describe(plan.spec, classes), "shards": shards}
    _remove_left(store)
    store.write(MANIFEST, as_json(content))


def _remove_left(store: Store) -> None:
    """Remove what killed processes left of files that they were writing; a bucket has no such files."""
    if store.is_local:
        for folder in (DATA, RECORDS):
            for path in Path(store.path(folder)).glob(".*.tmp"):
                path.unlink(missing_ok=True)
