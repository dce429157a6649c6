"""Generators in integers: the same bits on every machine, in whatever order it adds up.

Latents become uint8. Each layer is a product of uint8 rows and int8 weights, exact in int32, and an int32
offset. Sums stay below 2^24, so they are exact as float32. Times a float32 scale, which rounds once, then
clipped and cut to integers they are the next layer's uint8; the half that makes of cutting rounding is in the
offset, and ReLU is the clip at 0. The last sums decide: a deterministic pixel is on where its sum is positive, a
stochastic one where its uniform is below the probability that a table has for its scaled sum.

Weights lie within [-63, 63]: without VNNI instructions onnxruntime adds pairs of products in 16 bits, which
saturate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.errors import ExportError
from ..common.image_shape import ImageShape
from .products import Floats, Patches, Product

WEIGHT_LIMIT = 63
SUM_LIMIT = 2**24
LEVELS = 255
"""The largest output of a hidden layer."""
LATENT_SCALE, LATENT_ZERO = 32, 128
"""A latent z becomes round(32 z) + 128, from 0 to 255."""
TABLE_LEVELS = 4095
"""The largest index of the table of probabilities."""
_TABLE_SCALE, _TABLE_ZERO = 128, 2048  # its logits: steps of 1 / 128 from -16
_OFFSET_LIMIT = 2**22
_PERCENTILE = 99.99  # of a layer's activations: larger ones are clipped, which leaves finer steps to the rest


@dataclass(frozen=True, slots=True)
class IntegerLayer:
    """One product, and what its sums become. An image has `sums` of them: columns, times its patches."""

    weight: NDArray[np.int8]
    """[K, columns]."""
    offsets: NDArray[np.int32]
    """[1, sums], or [classes, sums]: a label chooses the row."""
    scale: NDArray[np.float32]
    """[sums]. An output is its sum times this, cut to an integer; for `levels` of None this gives logits."""
    levels: int | None
    """Outputs lie in 0..levels; None: they are the sums."""
    patches: Patches | None = None
    in_blocks: bool = False

    @property
    def largest_sum(self) -> int:
        """No sum, in whatever order its terms are added, exceeds this in size, with its offset or without."""
        weight = LEVELS * self.weight.astype(np.int64)
        most, least = weight.clip(min=0).sum(0), weight.clip(max=0).sum(0)
        offsets = self.offsets.astype(np.int64).reshape(-1, len(most))
        return int(max(most.max(), -least.min(), (offsets + most).max(), -(offsets + least).min()))


@dataclass(frozen=True, slots=True)
class IntegerGenerator:
    """All that a file holds: from latents [N, Z] and labels [N] to images [N, C, H, W]."""

    layers: Sequence[IntegerLayer]
    image_shape: ImageShape
    latent_size: int
    class_count: int
    table: NDArray[np.float32] | None
    """Stochastic neurons: the probability of each of the last layer's outputs."""


def quantize(
    products: Sequence[Product],
    latents: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    image_shape: ImageShape,
    *,
    stochastic: bool,
) -> IntegerGenerator:
    """A generator in integers, calibrated on latents [N, Z] and, with classes, labels [N].

    Each layer is calibrated on what the integer layers before it give. Raises ExportError, naming the layer, where
    activations are constant or sums leave the range in which they are exact.
    """
    for number, product in enumerate(products, 1):
        if not (np.isfinite(product.weight).all() and np.isfinite(product.bias).all()):
            raise ExportError(f"layer {number} has weights that are not finite: the training diverged")
    layers: list[IntegerLayer] = []
    exact: Floats = latents.astype(np.float64)
    inputs, unit, chosen = quantized_latents(latents), 1 / LATENT_SCALE, labels
    for number, product in enumerate(products[:-1], 1):
        sums = _Sums(product, exact, inputs, unit, chosen)
        unit = _unit(sums.activations, number)
        layers.append(sums.layer(unit, LEVELS))
        inputs = outputs(layers[-1], inputs, chosen).astype(np.uint8)
        exact, chosen = product.outputs(sums.activations), None
    last = _Sums(products[-1], exact, inputs, unit, chosen)
    if stochastic:
        layers.append(last.layer(1 / _TABLE_SCALE, TABLE_LEVELS, zero=_TABLE_ZERO))
    else:
        layers.append(last.layer(1, None))
    for number, layer in enumerate(layers, 1):
        _check_sums(layer, number)
    classes = 0 if labels is None else len(layers[0].offsets)
    return IntegerGenerator(layers, image_shape, latents.shape[1], classes, _table() if stochastic else None)


class _Sums:
    """A layer's sums on the rows of the calibration, the exact ones and those of rounded weights and inputs."""

    def __init__(
        self,
        product: Product,
        exact: Floats,
        inputs: NDArray[np.uint8],
        unit: float,
        labels: NDArray[np.int64] | None,
    ) -> None:
        """`exact` are the layer's inputs, `inputs` their integers, in which 1 stands for `unit`.

        With labels, the weights after those of the inputs are of a label's one-hot, which is scaled by the square
        root of the inputs' number: a label chooses a row of biases.
        """
        known = exact.shape[-1] if labels is not None else len(product.weight)
        self._product, self._inputs = product, inputs
        self._weight = unit * product.weight[:known]
        self._biases = product.bias + (
            math.sqrt(known) * product.weight[known:] if labels is not None else np.zeros((1, 1))
        )
        self._sums: Floats = product.rows(exact) @ product.weight[:known]
        self.activations: Floats = np.maximum(self._sums + chosen_row(self._biases, labels), 0)
        """[N, ..., columns]."""

    def layer(self, unit: float, levels: int | None, *, zero: int = 0) -> IntegerLayer:
        """The layer whose outputs are sums in steps of `unit`, plus `zero`, rounded."""
        shift = (zero + (0.5 if levels is not None else 0)) * unit
        steps = _steps(self._weight, self._biases, shift)
        weight = np.round(self._weight / steps).astype(np.int8)
        # The zero of the latents, and the mean error that rounding brings, go into the offsets.
        errors = self._sums / steps - multiplied(self._product.rows(self._inputs), weight)
        offsets = np.round(self._biases / steps + errors.mean(axis=tuple(range(errors.ndim - 1))) + shift / steps)
        offsets, scale = np.clip(offsets, -SUM_LIMIT, SUM_LIMIT), steps / unit  # one beyond is refused
        patches = self._product.patches
        if patches is not None:
            offsets = np.broadcast_to(offsets, (patches.count, offsets.shape[1]))
            if self._product.in_blocks:  # no sum outside of the image may be positive
                lowest = -LEVELS * weight.astype(np.int64).clip(min=0).sum(0)
                inside = patches.is_inside(offsets.shape[1]).reshape(offsets.shape)
                offsets = np.where(inside, offsets, lowest)
            offsets, scale = offsets.reshape(1, -1), np.tile(scale, patches.count)
        kept, scales = offsets.astype(np.int32), scale.astype(np.float32)
        return IntegerLayer(weight, kept, scales, levels, patches, self._product.in_blocks)


def quantized_latents(latents: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Latents as uint8, of the same shape."""
    steps = latents * np.float32(LATENT_SCALE) + np.float32(LATENT_ZERO + 0.5)
    clipped: NDArray[np.float32] = np.clip(steps, 0, LEVELS)
    return clipped.astype(np.uint8)


def outputs(layer: IntegerLayer, inputs: NDArray[np.uint8], labels: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """The outputs of a layer, as the next one takes them: [N, columns], images [N, H, W, C] or blocks of one."""
    rows = inputs if layer.patches is None else layer.patches.gather(inputs)
    products = multiplied(rows, layer.weight).reshape(len(inputs), -1)
    sums: NDArray[np.int64] = products + chosen_row(layer.offsets, labels)
    if layer.levels is not None:
        sums = np.clip(sums.astype(np.float32) * layer.scale, 0, layer.levels).astype(np.int64)
    if layer.patches is None or layer.in_blocks:
        return sums
    return layer.patches.image(layer.patches.in_patches(sums))


def multiplied(rows: NDArray[np.uint8], weight: NDArray[np.int8]) -> NDArray[np.int64]:
    """Rows times weights: as float64 exact up to 2^53 in any order, and faster than numpy's integers."""
    return (rows.astype(np.float64) @ weight.astype(np.float64)).astype(np.int64)


def chosen_row(table: NDArray[Any], labels: NDArray[np.int64] | None) -> NDArray[Any]:
    """The row of each label, or the only one for all."""
    row: NDArray[Any] = table[0] if labels is None else table[labels]
    return row


def _steps(weight: Floats, biases: Floats, shift: float) -> Floats:
    """What 1 stands for in the sums of each column: so little that weights, biases and the shift just fit."""
    offsets = np.maximum(np.abs(biases).max(0), shift)
    steps: Floats = np.maximum(np.abs(weight).max(0) / WEIGHT_LIMIT, offsets / _OFFSET_LIMIT)
    steps[steps == 0] = 1
    return steps


def _unit(activations: Floats, number: int) -> float:
    """What 1 stands for in the outputs of a hidden layer."""
    if activations.min() == activations.max():
        raise ExportError(
            f"layer {number} gives {activations.max():.3g} for whatever latents, so its integers have no scale; "
            "train for longer, or export it with --arithmetic float"
        )
    return float(np.percentile(activations, _PERCENTILE) or activations.max()) / LEVELS


def _check_sums(layer: IntegerLayer, number: int) -> None:
    if layer.largest_sum >= SUM_LIMIT:
        raise ExportError(
            f"layer {number} may add up to {layer.largest_sum:,}, and integers are exact below {SUM_LIMIT:,}: "
            f"it has {len(layer.weight)} inputs; train with fewer, or export it with --arithmetic float"
        )


def _table() -> NDArray[np.float32]:
    logits = (np.arange(TABLE_LEVELS + 1) - _TABLE_ZERO) / _TABLE_SCALE
    probabilities: NDArray[np.float32] = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return probabilities
