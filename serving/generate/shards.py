"""One shard of a bulk generation, made and stored by any process on any machine."""

import hashlib
import io
import json
import platform
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from ..config.stores import open_store
from ..errors import GenerationError
from ..models.engine import Engine, cpu_class, probed_engine
from ..models.manifest import is_integer
from ..models.noise import ImageRange
from ..models.npy import PACKING, npz_description
from ..models.providers import CPU, start_provider
from .bulk_plan import BulkPlan, ShardFormat, as_json
from .formats import GenerationSpec

_ROW_GROUP_IMAGES = 65_536
_Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ShardJob:
    """What the shards of one generation have in common."""

    plan: BulkPlan
    url: str
    """The store's."""
    model: bytes
    """The content of the model's file, which was checked."""
    provider: str = CPU.name
    """What computes the images."""


@dataclass(frozen=True, slots=True)
class ShardImages:
    """The images of one shard."""

    images: ImageRange
    packed: bytes
    labels: tuple[int, ...]
    """The class of each image, where the model has any."""
    classes: tuple[str, ...]
    """Their names."""


def make_shard(job: ShardJob, shard: int) -> _Record:
    """Generate a shard, store it, then its record, which is returned.

    Raises GenerationError where this machine computes another revision than the plan's, and StoreError.
    """
    plan, images = job.plan, job.plan.images(shard)
    engine = _engine(job.model, plan.spec.model, job.provider)
    _check_revision(engine, plan.spec.revision)
    batch = _sample(engine, images)
    content = WRITERS[plan.format](plan.spec, batch)
    store = open_store(job.url)
    store.write(plan.file(shard), content)
    record = {
        "shard": shard,
        "file": plan.file(shard),
        "first_index": images.first_index,
        "image_count": images.count,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    store.write(plan.record(shard), as_json(record))
    return record


def describe(spec: GenerationSpec, classes: tuple[str, ...]) -> dict[str, Any]:
    """What a reader must know of some images, beside which they are."""
    shape = ", ".join(map(str, spec.image_shape))
    return {
        "image_shape": list(spec.image_shape),
        "bytes_per_image": spec.packed_bytes,
        "packing": PACKING,
        "numpy": f"np.unpackbits(packed.reshape(-1, {spec.packed_bytes}), axis=1, count={spec.pixels})"
        f".reshape(-1, {shape})",
        **({"classes": list(classes)} if classes else {}),
    }


@lru_cache(maxsize=1)
def _engine(model: bytes, name: str, provider: str) -> Engine:
    """The engine of a model, tried on this machine once. Raises StartError where it has no such provider."""
    return probed_engine(model, name=name, provider=start_provider(provider))


def _check_revision(engine: Engine, planned: str) -> None:
    if engine.revision == planned:
        return
    what = f"{platform.node()} ({cpu_class()}, onnxruntime {onnxruntime.__version__})"
    advice = (
        "use the same file of the model"
        if is_integer(engine.manifest)
        else "a float model needs machines of one kind; `bgan export --arithmetic integer` writes one for all"
    )
    raise GenerationError(f"{what} computes the revision {engine.revision}, not the plan's {planned}: {advice}")


def _sample(engine: Engine, images: ImageRange) -> ShardImages:
    packed: list[bytes] = []
    labels: list[int] = []
    for part in images.parts(engine.preferred_batch_size()):
        batch = engine.sample(part.seed, part.first_index, part.count, labels=part.labels)
        packed.append(batch.packed_images)
        labels += batch.labels
    return ShardImages(images, b"".join(packed), tuple(labels), tuple(engine.manifest.classes))


def _parquet(spec: GenerationSpec, shard: ShardImages) -> bytes:
    """Columns index, seed, revision, label where there are classes, and image: the packed bits."""
    import pyarrow as pa
    from pyarrow import parquet

    count, first = shard.images.count, shard.images.first_index
    revision = pa.DictionaryArray.from_arrays(np.zeros(count, np.int8), [spec.revision])
    columns = {"index": np.arange(first, first + count), "seed": np.full(count, spec.seed), "revision": revision}
    if shard.classes:
        columns["label"] = np.array(shard.labels, np.int32)
    bits = [None, pa.py_buffer(shard.packed)]
    columns["image"] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(spec.packed_bytes), count, bits)
    metadata = {"bgan": json.dumps({"model": spec.model, **describe(spec, shard.classes)})}
    file = io.BytesIO()
    parquet.write_table(
        pa.table(columns, metadata=metadata),
        file,
        row_group_size=_ROW_GROUP_IMAGES,
        compression="zstd",
        use_dictionary=["seed", "revision"],  # images are told apart by no dictionary
    )
    return file.getvalue()


def _npz(spec: GenerationSpec, shard: ShardImages) -> bytes:
    """The arrays that `bgan generate` writes."""
    arrays: dict[str, npt.ArrayLike] = {
        "packed_images": np.frombuffer(shard.packed, np.uint8).reshape(-1, spec.packed_bytes),
        "image_shape": spec.image_shape,
        "seed": spec.seed,
        "first_index": shard.images.first_index,
        "model": spec.model,
        "revision": spec.revision,
        "description": npz_description(spec.image_shape, has_classes=bool(shard.classes)),
    }
    if shard.classes:
        arrays |= {"classes": shard.classes, "labels": np.array(shard.labels, "<i4")}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
    return file.getvalue()


def _bits(spec: GenerationSpec, shard: ShardImages) -> bytes:
    """The packed images and nothing else: the manifest says what they are."""
    return shard.packed


WRITERS: dict[ShardFormat, Callable[[GenerationSpec, ShardImages], bytes]] = {
    "parquet": _parquet,
    "npz": _npz,
    "bits": _bits,
}
"""By the format: the bytes of a shard's file."""
