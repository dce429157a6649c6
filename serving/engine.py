"""One loaded model: images of any (seed, first index, count), the same bits each time. Knows nothing of gRPC."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime 1.29 and later report home by default

import numpy as np
import numpy.typing as npt
import onnxruntime

from .errors import ModelFileError
from .manifest import read_manifest, shape_of, takes_uniforms
from .noise import NOISE_LAYOUT, Float32Array, NoiseLayout

TILE_ROWS = 64
_PREFERRED_BATCH_BYTES = 64 * 1024
_PREFERRED_BATCH_SIZES = (64, 1024)
_PROBE_ROWS = 256
_PROBE_COUNTS = (1, 2, 3, 7, 16, 33, 64, 129, 255)
_CPU_CLASSES = ("avx512f", "avx2", "avx")


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Consecutive images of a stream."""

    packed_images: bytes
    """One bit a pixel, each image padded to a whole byte."""
    probabilities: bytes
    """Little-endian float32, or empty if they were not asked for."""


class Engine:
    """A model file, checked, probed and ready to run; safe to use from several threads."""

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        """Load a file. Raises ModelFileError if it cannot be served."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelFileError(f"{path} cannot be read ({error.strerror})") from error
        self._session = _open_session(path, content, threads)
        try:
            self.manifest = read_manifest(self._session)
        except ModelFileError as error:
            raise ModelFileError(f"{path} {error}") from error
        self.image_shape = shape_of(self.manifest)
        self.revision = _revision(content)
        pixels = int(np.prod(self.image_shape))
        self.noise = NoiseLayout(
            latent_size=self.manifest.latent_size,
            uniform_count=pixels if takes_uniforms(self.manifest) else 0,
        )
        self.packed_bytes = -(-pixels // 8)
        self.probability_bytes = 4 * pixels
        self.tile_rows = None if self._rows_are_independent() else TILE_ROWS

    @property
    def preferred_batch_size(self) -> int:
        """The images a response carries unless the caller says otherwise."""
        least, most = _PREFERRED_BATCH_SIZES
        return min(max(_PREFERRED_BATCH_BYTES // self.packed_bytes, least), most)

    def sample(self, seed: int, first_index: int, count: int, *, with_probabilities: bool = False) -> ImageBatch:
        """Images first_index .. first_index + count - 1 of a seed; the bits depend on nothing else."""
        images, probabilities = self._run(seed, first_index, count)
        packed = np.packbits(images.reshape(count, -1), axis=1)
        return ImageBatch(
            packed.tobytes(), probabilities.astype("<f4", copy=False).tobytes() if with_probabilities else b""
        )

    def _run(self, seed: int, first_index: int, count: int) -> tuple[npt.NDArray[np.uint8], Float32Array]:
        if self.tile_rows is None:
            return self._infer(*self.noise.draw(seed, first_index, count))
        return self._run_tiles(seed, first_index, count, self.tile_rows)

    def _run_tiles(
        self, seed: int, first_index: int, count: int, rows: int
    ) -> tuple[npt.NDArray[np.uint8], Float32Array]:
        """Run whole tiles that begin at multiples of `rows`, so each image has the same neighbours every time."""
        end = first_index + count
        starts = range(first_index - first_index % rows, end, rows)
        tiles = [self._infer(*self.noise.draw(seed, start, rows)) for start in starts]
        images, probabilities = (np.concatenate(parts) for parts in zip(*tiles, strict=True))
        wanted = slice(first_index - starts[0], end - starts[0])
        return images[wanted], probabilities[wanted]

    def _infer(
        self, latents: Float32Array, uniforms: Float32Array | None
    ) -> tuple[npt.NDArray[np.uint8], Float32Array]:
        feeds = {"latents": latents}
        if uniforms is not None:
            feeds["uniforms"] = uniforms.reshape(-1, *self.image_shape)
        images, probabilities = self._session.run(["images", "probabilities"], feeds)
        return images, probabilities

    def _rows_are_independent(self) -> bool:
        """Whether the same rows give the same floats, bit for bit, in batches of several sizes and places."""
        latents, uniforms = self.noise.draw(0, 0, _PROBE_ROWS)
        _, expected = self._infer(latents, uniforms)
        for count in _PROBE_COUNTS:
            rows = slice(_PROBE_ROWS - count, _PROBE_ROWS)
            _, found = self._infer(latents[rows], None if uniforms is None else uniforms[rows])
            if found.tobytes() != expected[rows].tobytes():
                return False
        return True

    def infer(
        self, latents: Float32Array, uniforms: Float32Array | None
    ) -> tuple[npt.NDArray[np.uint8], Float32Array]:
        """The graph's own answer to a batch: images and probabilities, both [n, channels, height, width].

        `latents` is [n, latent_size]; `uniforms` is shaped as the answer, or None where the model takes none.
        """
        return self._infer(latents, uniforms)


@cache
def cpu_class() -> str:
    """The kind of CPU, as far as it decides which kernels onnxruntime picks."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return f"{platform.machine()}-{platform.processor()}"
    flags = set(text.split())
    return "-".join([platform.machine(), *[name for name in _CPU_CLASSES if name in flags][:1]])


def _open_session(path: Path, content: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would take the cores from the noise, the packing and the callers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelFileError(f"{path} is no ONNX model that onnxruntime can load ({reason})") from error


def _revision(content: bytes) -> str:
    """A digest of all that decides a stream's bits."""
    parts = (hashlib.sha256(content).hexdigest(), str(NOISE_LAYOUT), onnxruntime.__version__, cpu_class())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
