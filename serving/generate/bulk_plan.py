"""The plan of a bulk generation: which images lie in which shard. It is the first file in the store, and stays.

plan.json                             what all images are, and how they are cut into shards
data/images-00000-of-00040.parquet    a shard
records/00000.json                    of a shard that is whole: its size and digest
manifest.json                         the plan and all records, written when all shards are whole
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..config.stores import Store
from ..errors import GenerationError
from ..models.noise import ImageRange
from .formats import GenerationSpec

PLAN, MANIFEST, DATA, RECORDS = "plan.json", "manifest.json", "data", "records"
ShardFormat = Literal["parquet", "npz", "bits"]
_SHARD_BYTES = 2**26
"""Of packed images in a shard, unless it is said how many images it has."""
MAX_SHARD_BYTES = 2**30
"""A shard is in memory until it is written."""
_LEAST_DIGITS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkPlan:
    """All that decides the images of every shard."""

    spec: GenerationSpec
    format: ShardFormat
    shard_images: int
    """How many images a shard has; the last may have fewer."""

    @property
    def shard_count(self) -> int:
        """How many shards there are."""
        return math.ceil(self.spec.count / self.shard_images)

    def images(self, shard: int) -> ImageRange:
        """The images of a shard."""
        spec, start = self.spec, shard * self.shard_images
        count = min(self.shard_images, spec.count - start)
        return ImageRange(spec.seed, spec.first_index + start, count, spec.labels)

    def file(self, shard: int) -> str:
        """The name of a shard's file in the store; "images" is the split that `datasets` takes from it."""
        digits = max(_LEAST_DIGITS, len(str(self.shard_count)))
        return f"{DATA}/images-{shard:0{digits}}-of-{self.shard_count:0{digits}}.{self.format}"

    def record(self, shard: int) -> str:
        """The name of the file that says that a shard is whole."""
        return f"{RECORDS}/{shard:0{_LEAST_DIGITS}}.json"

    def to_dict(self) -> dict[str, Any]:
        """As plan.json has it."""
        return {**asdict(self.spec), "format": self.format, "shard_images": self.shard_images}


def shard_images(packed_bytes: int, count: int) -> int:
    """How many images a shard has unless that is said: a power of two, about 64 MiB of packed images."""
    return int(min(2 ** max(0, (_SHARD_BYTES // packed_bytes).bit_length() - 1), count))


def agree_on_plan(store: Store, wanted: BulkPlan, *, any_seed: bool, any_size: bool) -> BulkPlan:
    """The plan of a store, written if there is none. Raises GenerationError where another one is there.

    any_seed, any_size: that of a plan which is there is wanted too.
    """
    held = read_plan(store)
    if held is None:
        if store.names(DATA):
            raise GenerationError(f"{store.shown} has a folder {DATA}, but no {PLAN}; name another --output")
        store.write(PLAN, as_json(wanted.to_dict()))
        return wanted
    if any_seed:
        wanted = replace(wanted, spec=replace(wanted.spec, seed=held.spec.seed))
    if any_size:
        wanted = replace(wanted, shard_images=held.shard_images)
    before, now = held.to_dict(), wanted.to_dict()
    if differences := [f"{name} {before[name]} -> {now[name]}" for name in before if before[name] != now[name]]:
        raise GenerationError(
            f"{store.shown} is planned for other images ({', '.join(differences)}); name another --output"
        )
    return held


def read_plan(store: Store) -> BulkPlan | None:
    """The plan in a store; None: there is none. Raises GenerationError if it cannot be read, and StoreError."""
    content = store.read(PLAN)
    if content is None:
        return None
    try:
        given: dict[str, Any] = json.loads(content)
        own = {name: given.pop(name) for name in ("format", "shard_images")}
        tuples = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        plan = BulkPlan(spec=GenerationSpec(**(given | tuples)), **own)
        plan.file(0)  # its numbers are numbers
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise GenerationError(f"{store.shown}/{PLAN} is no plan of `bgan bulk`; name another --output") from error
    return plan


def as_json(content: dict[str, Any]) -> bytes:
    """Readable JSON."""
    return (json.dumps(content, indent=2) + "\n").encode()
