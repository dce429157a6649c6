"""The check of an exported file against the generator in double precision."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor

from ..common.errors import ExportError
from ..common.rng import random_stream
from ..networks.generators import Generator
from .model_file import open_session

_CHECKED_ROWS = 1024
_CHECKED_PIXELS = 2**22  # of all rows together: large images are checked on fewer of them
_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCheck:
    """The result of comparing a file's images with torch's."""

    rows: int
    """Images compared."""
    bits: int
    """Pixels compared."""
    differing_bits: int
    """Pixels that differ; each has a probability within a rounding error of its threshold."""
    largest_error: float
    """The largest difference between onnxruntime's probabilities and torch's in double precision."""
    on_fraction: float
    """Share of the pixels that are on."""


def check_export(model: onnx.ModelProto, generator: Generator, slope: float, *, stochastic: bool) -> ExportCheck:
    """Run the file and the unfolded generator on the same rows. Raises ExportError if they disagree.

    Both round: what is exact is the generator in double precision, and torch's own error, which grows with
    the logits, is the measure of the file's.
    """
    onnx.checker.check_model(model, full_check=True)
    inputs = _inputs(generator, stochastic=stochastic)
    latents, labels = inputs["latents"], inputs.get("labels")
    with torch.no_grad():
        rounded = torch.sigmoid(slope * generator(latents, labels)).numpy()
        exact_logits = copy.deepcopy(generator).double()(latents.double(), labels)
        expected = torch.sigmoid(slope * exact_logits).numpy()
    allowed = max(_TOLERANCE, 2 * float(np.abs(rounded - expected).max()))
    session = open_session(model.SerializeToString())
    feeds = {name: tensor.numpy() for name, tensor in inputs.items()}
    images, probabilities = session.run(["images", "probabilities"], feeds)

    if images.dtype != np.uint8 or images.shape != expected.shape or probabilities.shape != expected.shape:
        raise ExportError(f"the exported graph gives {images.dtype} {images.shape}, not uint8 {expected.shape}")
    largest_error = float(np.abs(probabilities - expected).max())
    if not largest_error <= allowed:
        raise ExportError(
            f"the exported graph's probabilities are up to {largest_error:.2e} away from torch's in double "
            f"precision; at most {allowed:.1e} is allowed"
        )
    threshold = feeds.get("uniforms", np.float32(0.5))
    differing = images.astype(bool) != (expected > threshold)
    if (differing & (np.abs(expected - threshold) > allowed)).any():
        raise ExportError("the exported graph sets other bits than torch does, away from the threshold")
    return ExportCheck(
        rows=len(latents),
        bits=images.size,
        differing_bits=int(differing.sum()),
        largest_error=largest_error,
        on_fraction=float(images.mean()),
    )


def _inputs(generator: Generator, *, stochastic: bool) -> dict[str, Tensor]:
    """Values of the file's inputs, by name."""
    random = random_stream(0, "export check")
    rows = max(1, min(_CHECKED_ROWS, _CHECKED_PIXELS // math.prod(generator.image_shape)))
    inputs = {"latents": torch.randn(rows, generator.latent_size, generator=random)}
    if stochastic:
        inputs["uniforms"] = torch.rand(rows, *generator.image_shape, generator=random)
    if generator.class_count:
        inputs["labels"] = torch.arange(rows) % generator.class_count
    return inputs
