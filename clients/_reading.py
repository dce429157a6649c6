"""Reads what `bgan sample`, `bgan generate` and `bgan bulk` write: files of images, and folders of shards.

Nothing of a file is believed: sizes, types, digests and indices must fit together.
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ._files import cut_grid
from ._text import printable
from ._types import ImageBatch

MANIFEST, PLAN = "manifest.json", "plan.json"
_COLUMNS = {"index", "seed", "revision", "image"}
_MAX_INDEX = 2**63 - 1


class ImageFileError(ValueError):
    """A file is not one of images, is broken, or does not fit what is said of it; the message names it."""


def load_images(path: str | os.PathLike[str]) -> ImageBatch:
    """All images of a file or folder that `bgan sample`, `bgan generate` or `bgan bulk` wrote, as one ImageBatch.

    path: .npz, .npy, .bits or .bin with the .json beside it, .parquet, or .png; or a folder of shards, of which
        each is held against its digest. Also a URL that fsspec opens. Parquet needs pyarrow, URLs need fsspec: the
        extra `bulk` has both.

    Labels, class names and probabilities are there where the file has them. A .npy and a .png say nothing of their
    origin: `model` and `revision` are "", `seed` is None and `first_index` 0. A grid of one channel, or of three
    as colours, is cut into its images; other channels lie side by side in it, and stay so, as one channel. All
    images are in memory, an eighth of a byte a pixel.

    Raises ImageFileError, a ValueError, for what is not such a file or is broken; OSError for one that cannot be
    read; ModuleNotFoundError, which says what to install.
    """
    location = os.fspath(path)
    suffix = os.path.splitext(location)[1]
    if "://" not in location and os.path.isdir(location):
        return _read_folder(location)
    if suffix in _READERS:
        with _broken_as_errors(location), _open(location) as file:
            return _READERS[suffix](location, file)
    if "://" in location and not suffix:
        return _read_folder(location)
    if not os.path.exists(location):
        raise FileNotFoundError(2, os.strerror(2), location)
    if suffix == ".partial":
        raise ImageFileError(f"{location} is unfinished; the command that began it resumes it")
    raise ImageFileError(f"{location} is none of {', '.join(_READERS)} and no folder of shards")


@contextmanager
def _broken_as_errors(location: str) -> Iterator[None]:
    """Raises ImageFileError for what numpy, zipfile, json and pyarrow stumble on."""
    try:
        yield
    except (ImageFileError, ModuleNotFoundError):
        raise
    except Exception as error:  # they raise whatever they stumble on
        if isinstance(error, OSError) and error.errno is not None:
            raise
        text = printable(str(error).split("\n", 1)[0] or type(error).__name__)
        raise ImageFileError(f"{location} is broken, or no file of bgan's: {text}") from error


def _open(location: str) -> IO[bytes]:
    """Raises FileNotFoundError and other OSErrors, and ModuleNotFoundError."""
    if "://" not in location:
        return Path(location).open("rb")
    opened: IO[bytes] = _module("fsspec").open(location).open()
    return opened


def _module(name: str) -> Any:
    try:
        return __import__(name, fromlist=["_"])
    except ModuleNotFoundError as error:
        package = name.split(".", maxsplit=1)[0]
        if error.name != package:
            raise
        text = f"this needs {package}, which is not installed: pip install 'bgan[bulk]'"
        raise ModuleNotFoundError(text, name=package) from error


def _batch(location: str, given: Mapping[str, Any]) -> ImageBatch:
    """A batch of what a file says. Raises ImageFileError where it does not hold together."""
    shape = tuple(map(int, given["image_shape"]))
    seed = None if given["seed"] is None else int(given["seed"])
    first, packed = int(given["first_index"]), given["packed_images"]
    labels, probabilities = given.get("labels"), given.get("probabilities")
    for problem in (
        _problem_of_images(packed, shape),
        _problem_of_origin(seed, first, len(packed)),
        _problem_of_array("labels", labels, (len(packed),), "iu"),
        _problem_of_array("probabilities", probabilities, (len(packed), *shape), "f"),
    ):
        if problem:
            raise ImageFileError(f"{location} {problem}")
    return ImageBatch(
        model=str(given["model"]),
        revision=str(given["revision"]),
        seed=seed,
        first_index=first,
        image_shape=(shape[0], shape[1], shape[2]),
        packed_images=packed,
        probabilities=None if probabilities is None else probabilities.astype(np.float32),
        labels=None if labels is None else labels.astype(np.int32),
        classes=tuple(map(str, given.get("classes", ()))),
    )


def _problem_of_images(packed: Any, shape: tuple[int, ...]) -> str | None:
    if len(shape) != 3 or min(shape) < 1:
        return f"has images of the shape {shape}, not (channels, height, width)"
    pixels = math.prod(shape)
    if packed.dtype != np.uint8 or packed.shape != (len(packed), -(-pixels // 8)):
        return f"has packed images of {packed.dtype} {packed.shape}, not uint8 [n, {-(-pixels // 8)}]"
    unused = (1 << -pixels % 8) - 1
    return "has images with bits beyond their last pixel" if (packed[:, -1] & unused).any() else None


def _problem_of_origin(seed: int | None, first_index: int, count: int) -> str | None:
    if count == 0:
        return "has no images"
    is_part = 0 <= (seed or 0) <= _MAX_INDEX and 0 <= first_index <= _MAX_INDEX - count
    return None if is_part else f"has images of no stream, of seed {seed} from index {first_index}"


def _problem_of_array(name: str, array: Any, shape: tuple[int, ...], kinds: str) -> str | None:
    if array is None or (array.shape == shape and array.dtype.kind in kinds):
        return None
    return f"has {name} of {array.dtype} {array.shape} with {shape[0]} images"


def _read_npz(location: str, file: IO[bytes]) -> ImageBatch:
    content = np.load(file, allow_pickle=False)
    if isinstance(content, np.ndarray):
        raise ImageFileError(f"{location} is a .npy; name it so")
    names = ("packed_images", "image_shape", "seed", "first_index", "model", "revision")
    if missing := [name for name in names if name not in content.files]:
        there = printable(", ".join(content.files)) or "nothing"
        raise ImageFileError(f"{location} has {there}, but no {', '.join(missing)}, as `bgan sample` writes them")
    optional = [name for name in ("labels", "classes", "probabilities") if name in content.files]
    return _batch(location, {name: content[name] for name in (*names, *optional)})


def _read_npy(location: str, file: IO[bytes]) -> ImageBatch:
    images = np.load(file, allow_pickle=False)
    if not isinstance(images, np.ndarray):
        raise ImageFileError(f"{location} is a .npz; name it so")
    if images.dtype != np.uint8 or images.ndim != 4 or (images > 1).any():
        what = f"{images.dtype} {images.shape}" + (", not all 0 and 1" if images.dtype == np.uint8 else "")
        raise ImageFileError(f"{location} has {what}, not uint8 [n, channels, height, width] of 0 and 1")
    return _of_unknown_origin(location, images)


def _of_unknown_origin(location: str, images: npt.NDArray[np.uint8]) -> ImageBatch:
    packed = np.packbits(images.reshape(len(images), -1), axis=1)
    origin = {"model": "", "revision": "", "seed": None, "first_index": 0}
    return _batch(location, {"packed_images": packed, "image_shape": images.shape[1:], **origin})


def _read_png(location: str, file: IO[bytes]) -> ImageBatch:
    images = cut_grid(np.asarray(Image.open(file)))
    if images is None:
        raise ImageFileError(f"{location} is no grid of images, as `bgan sample` writes it")
    return _of_unknown_origin(location, images)


def _read_bits(location: str, file: IO[bytes]) -> ImageBatch:
    sidecar = f"{location}.json"
    try:
        with _open(sidecar) as described:
            about = _json(sidecar, described.read())
    except FileNotFoundError:
        needed = f"{os.path.basename(sidecar)} beside it, which is missing; a shard is read with its folder"
        raise ImageFileError(f"{location} is read with {needed}") from None
    return _bits(location, file.read(), about, int(about["image_count"]))


def _bits(location: str, content: bytes, about: Mapping[str, Any], count: int) -> ImageBatch:
    """Packed images that `about` describes."""
    row_bytes = int(about["bytes_per_image"])
    if len(content) != count * row_bytes:
        raise ImageFileError(f"{location} has {len(content)} bytes, not {count} images of {row_bytes}")
    packed = np.frombuffer(content, np.uint8).reshape(count, row_bytes)
    given = {**about, "packed_images": packed}
    turns = given.pop("labels", None)  # of classes that were asked for by turns; drawn ones are not in the file
    if turns:
        given["labels"] = np.array(turns, np.int32)[(int(about["first_index"]) + np.arange(count)) % len(turns)]
    return _batch(location, given)


def _read_parquet(location: str, file: IO[bytes]) -> ImageBatch:
    table = _module("pyarrow.parquet").read_table(file)
    about = _json(location, (table.schema.metadata or {}).get(b"bgan", b"null"))
    if missing := _COLUMNS - set(table.column_names):
        text = f"has no column {', '.join(sorted(missing))}, as `bgan bulk` writes them"
        raise ImageFileError(f"{location} {text}")
    index, seeds = (table[name].to_numpy() for name in ("index", "seed"))
    revisions = table["revision"].unique().to_pylist()
    if not len(index) or len(revisions) != 1 or (seeds != seeds[0]).any() or (np.diff(index) != 1).any():
        raise ImageFileError(f"{location} has not consecutive images of one stream")
    image = table["image"].combine_chunks()
    chunks = image.chunks if hasattr(image, "chunks") else [image]
    packed = np.concatenate([_fixed_rows(chunk) for chunk in chunks])
    labels = {"labels": table["label"].to_numpy()} if "label" in table.column_names else {}
    origin = {"seed": seeds[0], "revision": revisions[0], "first_index": index[0], "packed_images": packed}
    return _batch(location, {**about, **origin, **labels})


def _fixed_rows(chunk: Any) -> Any:
    """A pyarrow array of bytes of one length, as uint8 [n, length]."""
    width = chunk.type.byte_width
    bits = np.frombuffer(chunk.buffers()[1], np.uint8)
    return bits[chunk.offset * width : (chunk.offset + len(chunk)) * width].reshape(-1, width)


def _json(location: str, content: bytes) -> dict[str, Any]:
    about = json.loads(content)
    if not isinstance(about, dict):
        raise ImageFileError(f"{location} does not say what its images are, as bgan's files do")
    return about


def _read_folder(location: str) -> ImageBatch:
    """All shards that a manifest lists."""
    manifest = f"{location.rstrip('/')}/{MANIFEST}"
    with _broken_as_errors(manifest):
        try:
            with _open(manifest) as file:
                about = _json(manifest, file.read())
        except FileNotFoundError:
            raise ImageFileError(f"{location} {_unfinished(location)}") from None
        batches = [_read_shard(location, about, shard) for shard in about["shards"]]
    try:
        whole = ImageBatch.concatenate(batches)
    except ValueError as error:
        raise ImageFileError(f"{location}: its shards do not follow each other") from error
    if (whole.first_index, len(whole)) != (about["first_index"], about["count"]):
        raise ImageFileError(f"{location} has {len(whole)} images, not the {about['count']} of {MANIFEST}")
    return whole


def _unfinished(location: str) -> str:
    """Why a folder has no manifest."""
    try:
        _open(f"{location.rstrip('/')}/{PLAN}").close()
    except FileNotFoundError:
        return f"is a folder without {MANIFEST}, as `bgan bulk` writes it beside data; name that folder"
    return "is not finished; the same command of `bgan bulk` resumes it"


def _read_shard(folder: str, about: Mapping[str, Any], shard: Mapping[str, Any]) -> ImageBatch:
    location = f"{folder.rstrip('/')}/{shard['file']}"
    with _open(location) as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != shard["sha256"]:
        raise ImageFileError(f"{location} was changed or cut: its SHA-256 is not that of {MANIFEST}")
    with _broken_as_errors(location):
        if about["format"] == "bits":
            part = {**about, "first_index": shard["first_index"]}
            return _bits(location, content, part, shard["image_count"])
        return _READERS[f".{about['format']}"](location, io.BytesIO(content))


_READERS: dict[str, Callable[[str, IO[bytes]], ImageBatch]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".bits": _read_bits,
    ".bin": _read_bits,
    ".parquet": _read_parquet,
    ".png": _read_png,
}
