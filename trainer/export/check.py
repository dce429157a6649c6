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


@dataclass(frozen=True, slots=True)
class ExportCheck:
    """What the check of an exported file found."""

    largest_error: float
    differing_bits: int
    bits: int
    on_fraction: float


def check_export(
    model: onnx.ModelProto,
    generator: Generator,
    slope: float,
    latents: Tensor,
    uniforms: Tensor | None,
    labels: Tensor | None,
) -> ExportCheck:
    """Run the file and the unfolded generator on the same rows. Raises ExportError if they disagree.

    Both round: what is exact is the generator in double precision, and torch's own error, which grows with
    the logits, is the measure of the file's.
    """
    onnx.checker.check_model(model, full_check=True)
    with torch.no_grad():
        rounded = torch.sigmoid(slope * generator(latents, labels)).numpy()
        exact_logits = copy.deepcopy(generator).double()(latents.double(), labels)
        expected = torch.sigmoid(slope * exact_logits).numpy()
    allowed = max(_TOLERANCE, 2 * float(np.abs(rounded - expected).max()))
    inputs = {"latents": latents, "uniforms": uniforms, "labels": labels}
    feeds = {name: tensor.numpy() for name, tensor in inputs.items() if tensor is not None}
    session = open_session(model.SerializeToString())
    images, probabilities = session.run(["images", "probabilities"], feeds)

    if images.dtype != np.uint8 or images.shape != expected.shape or probabilities.shape != expected.shape:
        raise ExportError(f"the exported graph gives {images.dtype} {images.shape}, not uint8 {expected.shape}")
    largest_error = float(np.abs(probabilities - expected).max())
    if not largest_error <= allowed:
        raise ExportError(
            f"the exported graph's probabilities are up to {largest_error:.2e} away from torch's in double "
            f"precision; at most {allowed:.1e} is allowed"
        )
    threshold = np.float32(0.5) if uniforms is None else uniforms.numpy()
    differing = images.astype(bool) != (expected > threshold)
    if (differing & (np.abs(expected - threshold) > allowed)).any():
        raise ExportError("the exported graph sets other bits than torch does, away from the threshold")
    return ExportCheck(largest_error, int(differing.sum()), images.size, float(images.mean()))


def check_inputs(generator: Generator, binarization: str) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Latents, and uniforms and labels where the file takes them."""
    random = random_stream(0, "export check")
    rows = max(1, min(_CHECKED_ROWS, _CHECKED_PIXELS // math.prod(generator.image_shape)))
    latents = torch.randn(rows, generator.latent_size, generator=random)
    uniforms = labels = None
    if binarization != "threshold":
        uniforms = torch.rand(rows, *generator.image_shape, generator=random)
    if generator.class_count:
        labels = torch.arange(rows) % generator.class_count
    return latents, uniforms, labels
