"""One loaded model: images of any (seed, first index, count), the same bits each time. Knows nothing of gRPC."""

from __future__ import annotations

import hashlib
import math
import platform
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnxruntime

from bgan.v1 import model_pb2

from ..config.limits import MAX_MODEL_BYTES
from ..errors import ModelFileError
from .integer_check import check_integers
from .manifest import is_integer, output_specs, part_count, read_manifest, shape_of, takes_uniforms
from .model_check import check_model, parse_model, read_model_file
from .noise import Float32Array, ImageRange, Int64Array, Noise, NoiseLayout, layout_number
from .providers import CPU, Provider, first_line, open_session
from .size_check import has_selections, selecting

TILE_ROWS = 64
RUN_ROWS = CPU.run_rows
"""The most rows of one inference on a CPU: as fast as more, while noise and outputs stay in its caches."""
_PREFERRED_BATCH_BYTES = 256 * 1024  # a message costs a millisecond of CPU, whatever its size
_PREFERRED_BATCH = (64, 4096)  # at least, and at most
_PROBE_ROWS = 256
_PROBE_COUNTS = (1, 2, 3, 7, 16, 33, 64, RUN_ROWS, 129, 255)
_DIGESTED_IMAGES = 1024
_SECONDS_TO_OPEN = 10
_ROUNDING = 1e-4  # of a probability: a pixel this near to its threshold may be on or off
_ALL = slice(None)
_ABOVE_ONE = np.nextafter(np.float32(1), np.float32(2))  # onnxruntime's Sigmoid of 17.844, on some CPUs
onnxruntime.disable_telemetry_events()  # those of Windows; the package has seen to the others
_CPU_CLASSES = ("avx512f", "avx2", "avx")


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Consecutive images of a stream."""

    packed_images: bytes
    """One bit a pixel, each image padded to a whole byte."""
    probabilities: bytes
    """Little-endian float32, or empty if they were not asked for."""
    labels: tuple[int, ...] = ()
    """The class of each image, where the model has any."""
    part_runs: tuple[int, ...] = ()
    """For how many of the images each part ran, where the model has gates."""


def load_engine(
    path: Path,
    *,
    threads: int = 1,
    name: str | None = None,
    version: int = 0,
    max_bytes: int = MAX_MODEL_BYTES,
    is_timed: bool = False,
    provider: Provider = CPU,
) -> Engine:
    """Read, check and probe a model file. Raises ModelFileError if it cannot be served.

    threads: those of one inference. Several inferences at once of one thread each use the cores better than one of
        several threads, which wait for each other in every layer.
    name: what the model is called; None: as its manifest says.
    version: its number; 0: none.
    is_timed: refuse a file that takes long to open, since nothing can stop a process that opens it again.
    provider: what computes it.
    """
    content = read_model_file(path, max_bytes)
    try:
        engine = probed_engine(
            content, threads=threads, name=name, version=version, provider=provider, is_timed=is_timed
        )
    except ModelFileError as error:
        raise ModelFileError(f"{path} {error.message}", detail=error.detail) from error
    engine.path = path
    return engine


def probed_engine(
    content: bytes,
    *,
    threads: int = 1,
    name: str | None = None,
    version: int = 0,
    provider: Provider = CPU,
    is_timed: bool = False,
) -> Engine:
    """As `load_engine`, of a file's content. Raises ModelFileError, without the file's name."""
    check_model(content)
    started = time.process_time()
    engine = open_engine(content, threads=threads, name=name, version=version, provider=provider)
    if is_timed and time.process_time() - started > _SECONDS_TO_OPEN:
        raise ModelFileError(f"takes more than {_SECONDS_TO_OPEN} s of a core to open")
    if is_integer(engine.manifest):
        check_integers(content)
    probe(engine)
    _try_extremes(engine, content)
    return engine


def open_engine(
    content: bytes, *, threads: int = 1, name: str | None = None, version: int = 0, provider: Provider = CPU
) -> Engine:
    """The engine of a file's content that was checked, neither probed nor timed.

    Raises ModelFileError, without the file's name.
    """
    session = open_session(content, provider, threads)
    manifest = read_manifest(session)
    manifest.name = name or manifest.name
    digest = hashlib.sha256(content).hexdigest()
    return Engine(session, manifest, file_sha256=digest, version=version, provider=provider)


class Engine:
    """A model that is ready to run; safe to use from several threads."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        manifest: model_pb2.Model,
        *,
        file_sha256: str,
        version: int = 0,
        provider: Provider = CPU,
    ) -> None:
        self._session = session
        self.manifest = manifest
        self.file_sha256 = file_sha256
        self.revision = _revision(file_sha256, manifest, provider)
        self.version = version
        self.provider = provider
        self.path: Path | None = None
        """Where its file was, which may hold another one by now; None: nowhere."""
        self.image_shape = shape_of(manifest)
        pixels = math.prod(self.image_shape)
        self.class_count = len(manifest.classes)
        """0: it takes no labels."""
        self.part_count = part_count(manifest)
        """0: it has no gates."""
        self._outputs = [spec.name for spec in output_specs(manifest)]
        self._stream_outputs = [name for name in self._outputs if name != "probabilities"]
        uniforms = pixels if takes_uniforms(manifest) else 0
        self.noise = NoiseLayout(
            manifest.latent_size,
            uniform_count=uniforms,
            class_count=self.class_count,
            class_counts=manifest.class_counts,
            inner_count=manifest.inner_uniform_count,
        )
        self.packed_bytes = -(-pixels // 8)
        self.probability_bytes = 4 * pixels
        self.run_rows = provider.run_rows
        """The most rows of one inference."""
        self.tile_rows: int | None = None
        """Rows of the fixed tiles that a model runs in whose rows depend on the batch; None: any batch."""
        self.seconds_per_image = 0.001
        """About how long an image takes as one of many; decides where runs are made, never what they give."""

    def __str__(self) -> str:
        number = f" version {self.version}" if self.version else ""
        return f"{self.manifest.name}{number}, revision {self.revision}"

    def open_file(self) -> BinaryIO:
        """Its file, open at the start. Raises ModelFileError if that is there no more."""
        try:
            if self.path is None or not self.path.is_file():  # a pipe would be waited for
                raise ModelFileError(f"the file of {self} is there no more")
            with ExitStack() as stack:
                file = stack.enter_context(self.path.open("rb"))
                digest = hashlib.file_digest(file, "sha256").hexdigest()  # 256 KiB at a time
                if digest != self.file_sha256:
                    raise ModelFileError(f"{self.path} holds another model by now")
                file.seek(0)
                stack.pop_all()
                return file
        except OSError as error:
            raise ModelFileError(f"{self.path} cannot be read ({error.strerror})") from error

    def preferred_batch_size(self, *, with_probabilities: bool = False) -> int:
        """The images a response carries unless the caller says otherwise: whole runs, where it has several."""
        image_bytes = self.packed_bytes + (self.probability_bytes if with_probabilities else 0)
        least, most = _PREFERRED_BATCH
        size = min(max(_PREFERRED_BATCH_BYTES // image_bytes, least), most)
        rows = self.run_rows
        if self.tile_rows == rows:  # a part of a tile takes as long as all of it
            return max(size - size % rows, rows)
        return size - size % rows if size > rows else size

    def sample(
        self,
        seed: int,
        first_index: int,
        count: int,
        *,
        labels: tuple[int, ...] = (),
        with_probabilities: bool = False,
    ) -> ImageBatch:
        """Images first_index .. first_index + count - 1 of a seed; the bits depend on nothing else but the labels.

        Image i is of the class labels[i mod their number]; without labels its class is drawn.
        """
        steps = self.sample_in_steps(seed, first_index, count, labels, with_probabilities)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                batch: ImageBatch = end.value
                return batch

    def sample_in_steps(
        self, seed: int, first_index: int, count: int, labels: tuple[int, ...], with_probabilities: bool
    ) -> Generator[None, None, ImageBatch]:
        """The same, yielding between inferences."""
        outputs = self._outputs if with_probabilities else self._stream_outputs
        found: list[ImageBatch] = []
        for noise, wanted in self._runs(ImageRange(seed, first_index, count, labels)):
            if found:
                yield
            found.append(_batch(self._infer(outputs, noise), noise, wanted))
        return _joined(found)

    def sample_ranges(self, ranges: Sequence[ImageRange]) -> list[ImageBatch]:
        """The images of each range, from one inference. Raises ValueError where `tile_rows` is set."""
        if self.tile_rows is not None:
            raise ValueError("the rows of this model depend on each other; sample each range alone")
        noise = self.noise.draw_ranges(ranges)
        found = self._infer(self._stream_outputs, noise)
        whole, answers, end = _batch(found, noise), [], 0
        for each in ranges:
            start, end = end, end + each.count
            images = whole.packed_images[start * self.packed_bytes : end * self.packed_bytes]
            runs = _part_runs(found, slice(start, end)) if self.part_count else ()
            answers.append(ImageBatch(images, b"", whole.labels[start:end], runs))
        return answers

    def _runs(self, images: ImageRange) -> Iterator[tuple[Noise, slice]]:
        """The inferences that give these images: their noise, and which of its rows are wanted.

        Tiles are run whole and begin at multiples of their rows: each image always has the same neighbours.
        Noise is drawn for several runs at once, since a model leaves little of its table in a CPU's cache.
        """
        rows = self.tile_rows or self.run_rows
        end = images.first_index + images.count
        first = images.first_index - images.first_index % rows if self.tile_rows else images.first_index
        at_once = rows * max(self.noise.images_at_once // rows, 1)
        for start in range(first, end, at_once):
            count = min(end - start, at_once)
            count += -count % rows if self.tile_rows else 0
            noise = self.noise.draw(images.seed, start, count, images.labels)
            for place in range(start, start + count, rows):
                wanted = slice(max(images.first_index - place, 0), min(end - place, rows))
                yield noise.rows(place - start, rows), wanted

    def infer(
        self,
        latents: Float32Array,
        uniforms: Float32Array | None,
        labels: Int64Array | None = None,
        inner: Float32Array | None = None,
    ) -> list[npt.NDArray[Any]]:
        """The graph's own outputs for a batch: images and probabilities, both [n, channels, height, width].

        Where it has gates, these follow, uint8 [n, part_count]. `latents` is [n, latent_size], `uniforms` has the
        images' size, `labels` is [n], `inner` is [n, noise.inner_count]; None where not taken.
        """
        return list(self._infer(self._outputs, Noise(latents, uniforms, labels, inner)).values())

    def _infer(self, outputs: Sequence[str], noise: Noise) -> dict[str, npt.NDArray[Any]]:
        found = dict(zip(outputs, self._session.run(outputs, noise.feeds(self.image_shape)), strict=True))
        if (probabilities := found.get("probabilities")) is not None:
            probabilities[probabilities == _ABOVE_ONE] = 1
        return found


def _batch(found: dict[str, npt.NDArray[Any]], noise: Noise, wanted: slice = _ALL) -> ImageBatch:
    """The wanted rows of an inference."""
    probabilities = found.get("probabilities")
    return ImageBatch(
        _pack(found["images"][wanted]),
        b"" if probabilities is None else probabilities[wanted].astype("<f4", copy=False).tobytes(),
        () if noise.labels is None else tuple(noise.labels[wanted].tolist()),
        _part_runs(found, wanted),
    )


def _part_runs(found: dict[str, npt.NDArray[Any]], wanted: slice) -> tuple[int, ...]:
    """For how many of the wanted rows each part ran; empty without gates."""
    gates = found.get("gates")
    return () if gates is None else tuple(gates[wanted].sum(0, dtype=np.int64).tolist())


def _joined(parts: Sequence[ImageBatch]) -> ImageBatch:
    """One batch of consecutive ones."""
    if len(parts) == 1:
        return parts[0]
    return ImageBatch(
        b"".join(each.packed_images for each in parts),
        b"".join(each.probabilities for each in parts),
        tuple(label for each in parts for label in each.labels),
        tuple(map(sum, zip(*(each.part_runs for each in parts), strict=True))),
    )


def probe(engine: Engine) -> None:
    """Find out how a model is to be run, and how fast it is. Raises ModelFileError if it is not to be served."""
    noise = engine.noise.draw(0, 0, max(_PROBE_ROWS, engine.run_rows))
    with _runs_of_a_file():
        outputs = engine.infer(*noise)
        again = engine.infer(*noise)
        if _bytes_of(again) != _bytes_of(outputs):
            raise ModelFileError("gives other images when the same are asked for again; export it in eval mode")
        _check_outputs(engine, noise, *outputs)
        if is_integer(engine.manifest):
            _check_digest(engine)
        engine.tile_rows = _tile_rows(engine, noise, outputs)
        noise = engine.noise.draw(0, 0, engine.run_rows)
        started = time.perf_counter()
        engine.infer(*noise)
        engine.seconds_per_image = (time.perf_counter() - started) / engine.run_rows


@contextmanager
def _runs_of_a_file(which: str = "") -> Iterator[None]:
    """Whatever fails here but memory is a ModelFileError, in one line that says `which` runs failed."""
    try:
        yield
    except ModelFileError as error:
        raise ModelFileError(f"{error.message}{which}", detail=error.detail) from error
    except MemoryError:
        raise
    except Exception as error:  # as in open_session
        raise ModelFileError(f"cannot be run{which}", detail=first_line(error)) from error


def _try_extremes(engine: Engine, content: bytes) -> None:
    """Try a model with all of its parts running for all images, and with none: no noise asks more of it, or less.

    It is tried with all of them as it was without, so that it has the same time. Raises ModelFileError.
    """
    if b"NonZero" not in content:  # reading it again would be for nothing
        return
    for everything, which in ((True, "everything"), (False, "nothing")):
        message = parse_model(content)
        if not has_selections(message):
            return
        with _runs_of_a_file(f" where the noise selects {which}"):
            extreme = open_engine(selecting(message, everything=everything), provider=engine.provider)
            if everything:
                probe(extreme)
                engine.tile_rows = engine.tile_rows or extreme.tile_rows
            else:
                noise = extreme.noise.draw(0, 0, engine.run_rows)
                _check_outputs(extreme, noise, *extreme.infer(*noise))


def _bytes_of(outputs: Sequence[npt.NDArray[Any]], rows: slice = _ALL) -> list[bytes]:
    return [each[rows].tobytes() for each in outputs]


def _check_outputs(
    engine: Engine,
    noise: Noise,
    images: npt.NDArray[np.uint8],
    probabilities: Float32Array,
    gates: npt.NDArray[np.uint8] | None = None,
) -> None:
    """Raises ModelFileError where the outputs are not what the manifest makes of probabilities and gates."""
    shape = (len(noise.latents), *engine.image_shape)
    if images.shape != shape or probabilities.shape != shape:
        raise ModelFileError(f"gives images of the shape {images.shape}, where its manifest promises {shape}")
    if images.max() > 1:
        raise ModelFileError("gives images with other values than 0 and 1")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # nor is NaN
        raise ModelFileError("gives probabilities that are not from 0 to 1")
    threshold = np.float32(0.5) if noise.uniforms is None else noise.uniforms.reshape(shape)
    is_clear = np.abs(probabilities - threshold) > _ROUNDING
    if (is_clear & ((probabilities > threshold) != images)).any():
        what = "exceeds 0.5" if noise.uniforms is None else "exceeds its uniform"
        raise ModelFileError(f"gives images whose pixels are not on where their probability {what}")
    if gates is not None:
        _check_gates(gates, (len(noise.latents), engine.part_count))


def _check_gates(gates: npt.NDArray[np.uint8], shape: tuple[int, int]) -> None:
    if gates.shape != shape:
        raise ModelFileError(f"gives gates of the shape {gates.shape}, where its manifest promises {shape}")
    if gates.max() > 1:
        raise ModelFileError("gives gates with other values than 0 and 1")


def _check_digest(engine: Engine) -> None:
    """Raises ModelFileError where the images are others on this machine than on that which wrote the file."""
    packed = engine.sample(0, 0, _DIGESTED_IMAGES).packed_images
    if hashlib.sha256(packed).hexdigest() != engine.manifest.images_sha256:
        raise ModelFileError(
            "gives other images here than its manifest promises: it was edited, or this onnxruntime is at fault; "
            "write it again with `bgan export`, or use another version of onnxruntime"
        )


def _tile_rows(engine: Engine, noise: Noise, expected: Sequence[npt.NDArray[Any]]) -> int | None:
    """The rows of a model's tiles; None: any batch gives the same.

    Libraries of other providers choose a kernel by the number of rows, so that trying some numbers proves nothing.
    """
    if not engine.provider.is_cpu and not is_integer(engine.manifest):
        return engine.run_rows
    if _rows_are_independent(engine, noise, expected):
        return None
    return TILE_ROWS if engine.provider.is_cpu else engine.run_rows


def _rows_are_independent(engine: Engine, noise: Noise, expected: Sequence[npt.NDArray[Any]]) -> bool:
    """Whether the same rows give the same floats, bit for bit, in batches of several sizes and places."""
    end = len(noise.latents)
    for count in _PROBE_COUNTS:
        found = engine.infer(*noise.rows(end - count, count))
        if _bytes_of(found) != _bytes_of(expected, slice(end - count, end)):
            return False
    return True


def _pack(images: npt.NDArray[np.uint8]) -> bytes:
    return np.packbits(images.reshape(len(images), -1), axis=1).tobytes()


@cache
def cpu_class() -> str:
    """The kind of CPU, as far as it decides which kernels onnxruntime picks."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return f"{platform.machine()}-{platform.processor()}"
    return "-".join([platform.machine(), *[name for name in _CPU_CLASSES if name in flags][:1]])


def _revision(file_sha256: str, manifest: model_pb2.Model, provider: Provider) -> str:
    """A digest of all that decides a stream's bits: for floats also of what adds them up."""
    parts = [file_sha256, str(layout_number(manifest.class_counts, manifest.inner_uniform_count))]
    if not is_integer(manifest):
        parts += [onnxruntime.__version__, cpu_class(), *provider.identity]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
