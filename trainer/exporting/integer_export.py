"""Integer files of generators: calibrated, written, and proved against a reference in numpy's integers."""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from ..common.errors import ExportError
from ..common.rng import random_stream
from ..networks.generators import Generator
from .graph import folded_layers
from .integer import IntegerGenerator, quantize
from .integer_graph import integer_graph
from .integer_reference import reference_images
from .model_file import open_session
from .products import as_products
from .stream_noise import first_noise

DIGESTED_IMAGES = 1024
"""Images of seed 0 whose digest the manifest holds."""
_CALIBRATION_ROWS = 1024
_CALIBRATION_PIXELS = 2**20
_PROOF_ROWS = 10_000
_PROOF_PIXELS = 2**23  # of all rows together: larger images are proved on fewer, down to those of the digest


@dataclass(frozen=True, slots=True)
class IntegerProof:
    """What was found of an integer file, on the first images of seed 0."""

    rows: int
    """Images in which onnxruntime and the reference have the same bits."""
    bits: int
    """Pixels of these images."""
    differing_bits: int
    """Pixels that the generator in floats has otherwise."""
    largest_error: float
    """The largest difference between its probabilities and those of the generator in floats."""
    on_fraction: float
    images_sha256: str
    """The digest of the first 1,024 images, packed."""


def to_integers(
    generator: Generator, slope: float, *, stochastic: bool
) -> tuple[onnx.ModelProto, IntegerGenerator]:
    """The graph of a generator in integers, and what it holds. Raises ExportError where there is none."""
    random = random_stream(0, "calibration")
    pixels = math.prod(generator.image_shape)
    rows = max(32, min(_CALIBRATION_ROWS, _CALIBRATION_PIXELS // pixels))
    latents = torch.randn(rows, generator.latent_size, generator=random).numpy()
    labels = np.arange(rows) % generator.class_count if generator.class_count else None
    products = as_products(folded_layers(generator.layers, slope))
    integers = quantize(products, latents, labels, generator.image_shape, stochastic=stochastic)
    return integer_graph(integers), integers


def proved(
    model: onnx.ModelProto,
    integers: IntegerGenerator,
    generator: Generator,
    slope: float,
    class_counts: tuple[int, ...],
) -> IntegerProof:
    """Run the file, the reference and the generator in floats on the same rows.

    Raises ExportError where the file has another bit than the reference.
    """
    onnx.checker.check_model(model, full_check=True)
    session = open_session(model.SerializeToString())
    shape = integers.image_shape
    pixels = math.prod(shape)
    rows = max(DIGESTED_IMAGES, min(_PROOF_ROWS, _PROOF_PIXELS // pixels))
    counts = class_counts or (1,) * integers.class_count
    digest, seen = hashlib.sha256(), 0
    differing, lit, largest_error = 0, 0, 0.0
    for inputs in first_noise(
        rows, integers.latent_size, shape, stochastic=integers.table is not None, class_counts=counts
    ):
        images, probabilities = session.run(["images", "probabilities"], inputs)
        expected = reference_images(integers, **inputs)
        if images.dtype != np.uint8 or not np.array_equal(images, expected):
            raise ExportError("the exported graph has other bits in onnxruntime than in numpy's integers")
        floats = _probabilities(generator, slope, inputs)
        differing += int((images != (floats > inputs.get("uniforms", 0.5))).sum())
        largest_error = max(largest_error, float(np.abs(probabilities - floats).max()))
        lit += int(images.sum())
        left = DIGESTED_IMAGES - seen
        digest.update(np.packbits(images[: max(left, 0)].reshape(-1, pixels), axis=1).tobytes())
        seen += len(images)
    return IntegerProof(rows, rows * pixels, differing, largest_error, lit / (rows * pixels), digest.hexdigest())


def _probabilities(generator: Generator, slope: float, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Those of the generator in floats."""
    with torch.no_grad():
        labels = torch.from_numpy(inputs["labels"]) if "labels" in inputs else None
        return torch.sigmoid(slope * generator(torch.from_numpy(inputs["latents"]), labels)).numpy()
