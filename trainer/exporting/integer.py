"""Generators in integers: the same bits on every machine, in whatever order it adds up.

Latents become uint8. Each layer is a product of uint8 rows and int8 weights, exact in int32, and an int32
offset. Sums stay below 2^24, so they are exact as float32. Times a power of two, which is exact too, then rounded
half to even and clipped to uint8, they are the next layer's rows; ReLU is the clip at 0. The first layer, whose
offset a label chooses, and the table of the last one have a float32 scale for each column, which rounds once, and
are cut to integers; the half that makes of cutting rounding is in the offset. The last sums decide: a
deterministic pixel is on where its sum is positive, a stochastic one where its uniform is below the probability
that a table has for its scaled sum.

Weights lie within [-63, 63]: without VNNI instructions onnxruntime adds pairs of products in 16 bits, which
saturate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.errors import ExportError
from ..common.image_shape import ImageShape
from .products import Floats, Patches, Product, arranged

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
_ROUNDED_OFFSET_LIMIT = 2**17  # each input that makes offsets costs a 128th of a product
_LEAST_POWER = -24  # of two: a smaller one leaves nothing of a sum
_TRIED_POWERS = range(-2, 4)  # around the one that suits the median channel
_DAMPING = 0.01  # of the mean square of an input, as GPTQ has it
# One activation that is clipped costs the first layer more than coarser steps cost all of them.
_HEADROOM = 1.1  # over the largest of the calibration
_PERCENTILE = 99.99  # of a channel's activations, at all places: larger ones are clipped


@dataclass(frozen=True, slots=True)
class IntegerLayer:
    """One product, and what its sums become."""

    weight: NDArray[np.int8]
    """[K, columns]."""
    offsets: NDArray[np.int32]
    """[1, columns], or [classes, columns]: a label chooses the row."""
    scale: NDArray[np.float32]
    """[columns]. An output is its sum times this, cut to an integer; for `levels` of None this gives logits."""
    levels: int | None
    """Outputs lie in 0..levels; None: they are the sums."""
    patches: Patches | None = None
    constants: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    """The inputs [m] with which every row ends, instead of offsets. Outputs are rounded then, half to even, and
    `scale` [1] is a power of two: what one operator of ONNX does."""
    in_blocks: bool = False

    @property
    def largest_sum(self) -> int:
        """No sum, in whatever order its terms are added, exceeds this in size, with its offset or without."""
        weight = LEVELS * self.weight.astype(np.int64)
        most, least = weight.clip(min=0).sum(0), weight.clip(max=0).sum(0)
        offsets = self.offsets.astype(np.int64)
        return int(max(most.max(), -least.min(), (offsets + most).max(), -(offsets + least).min()))

    def rows(self, inputs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What is multiplied, [N, ..., K], of what the layer before gave."""
        rows = inputs if self.patches is None else self.patches.gather(inputs)
        ends = np.broadcast_to(self.constants, (*rows.shape[:-1], len(self.constants)))
        return np.concatenate([rows, ends], -1)


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
    inputs, exact = quantized_latents(latents), latents.astype(np.float64)
    sums = _Sums(products[0], exact, inputs, np.full(1, 1 / LATENT_SCALE), labels)
    unit = _unit(sums.activations, 1)
    layers, units = [sums.cut(unit, LEVELS)], np.full(1, unit)
    inputs = outputs(layers[0], inputs, labels).astype(np.uint8)
    for number, (product, following) in enumerate(pairwise(products[1:]), 2):
        sums = _Sums(product, sums.exact_outputs, inputs, units)
        _unit(sums.activations, number)
        channels = following.patches.channels if following.patches else len(following.weight)
        layer, units = sums.rounded(channels)
        layers.append(layer)
        inputs = outputs(layer, inputs, None).astype(np.uint8)
    sums = _Sums(products[-1], sums.exact_outputs, inputs, units)
    if stochastic:
        layers.append(sums.cut(1 / _TABLE_SCALE, TABLE_LEVELS, zero=_TABLE_ZERO))
    else:
        layers.append(sums.cut(1, None))
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
        units: Floats,
        labels: NDArray[np.int64] | None = None,
    ) -> None:
        """`exact` are the layer's inputs, `inputs` their integers, in which 1 stands for `units` [channels].

        With labels, the weights after those of the inputs are of a label's one-hot, which is scaled by the square
        root of the inputs' number: a label chooses a row of biases.
        """
        known = exact.shape[-1] if labels is not None else len(product.weight)
        self._product, self._inputs, self._rows = product, inputs, product.rows(inputs)
        # Channels are last, and repeat.
        self._weight: Floats = np.resize(units, (known, 1)) * product.weight[:known]
        self._biases = product.bias + (
            math.sqrt(known) * product.weight[known:] if labels is not None else np.zeros((1, 1))
        )
        self._sums: Floats = product.rows(exact) @ product.weight[:known]
        self.activations: Floats = np.maximum(self._sums + chosen_row(self._biases, labels), 0)
        """[N, ..., columns]."""
        self.exact_outputs: Floats = product.outputs(self.activations)
        """The activations as the next layer takes them."""

    def cut(self, unit: float, levels: int | None, *, zero: int = 0) -> IntegerLayer:
        """The layer whose outputs are sums in steps of `unit`, plus `zero`, rounded by cutting."""
        shift = (zero + (0.5 if levels is not None else 0)) * unit
        steps = self._least_steps(shift, _OFFSET_LIMIT)
        steps[steps == 0] = 1
        weight, offsets = self._in_steps(steps, shift)
        return IntegerLayer(weight, offsets, (steps / unit).astype(np.float32), levels, self._product.patches)

    def rounded(self, channels: int) -> tuple[IntegerLayer, Floats]:
        """The layer whose outputs are sums times one power of two, and what 1 stands for in each of its channels.

        A finer power leaves more steps to activations and fewer to weights: the one that loses least is taken.
        """
        finest = self._least_steps(0, _ROUNDED_OFFSET_LIMIT).reshape(-1, channels).max(0)
        activations = self.activations.reshape(-1, channels)
        largest = np.percentile(activations, _PERCENTILE, axis=0)
        least = np.where(largest > 0, largest, activations.max(0)) / LEVELS
        middle = round(float(np.median(np.log2(finest[least > 0] / least[least > 0]))))
        powers = sorted({min(max(middle + step, _LEAST_POWER), 0) for step in _TRIED_POWERS})
        tried = [self._by_power(2.0**power, finest, least) for power in powers]
        return min(tried, key=self._loss)

    def _by_power(self, power: float, finest: Floats, least: Floats) -> tuple[IntegerLayer, Floats]:
        units = np.maximum(least, finest / power)
        units[units == 0] = 1
        weight, offsets = self._in_steps(np.resize(power * units, self._weight.shape[1]), 0)
        constants, rows = _made_by_inputs(offsets[0])
        return IntegerLayer(
            np.concatenate([weight, rows]),
            np.zeros_like(offsets),
            np.full(1, power, np.float32),
            LEVELS,
            self._product.patches,
            constants,
            self._product.in_blocks,
        ), units

    def _loss(self, tried: tuple[IntegerLayer, Floats]) -> float:
        layer, units = tried
        found = outputs(layer, self._inputs, None)
        return float(np.square(found * np.resize(units, found.shape[-1]) - self.exact_outputs).mean())

    def _least_steps(self, shift: float, offset_limit: int) -> Floats:
        """[columns]: what 1 stands for in the sums where weights, biases and the shift just fit."""
        offsets = np.maximum(np.abs(self._biases).max(0), shift)
        steps: Floats = np.maximum(np.abs(self._weight).max(0) / WEIGHT_LIMIT, offsets / offset_limit)
        return steps

    def _in_steps(self, steps: Floats, shift: float) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
        """The weights, and the offsets [1 or classes, columns]."""
        weight = _rounded_weights(self._weight / steps, self._carried)
        # The zero of the latents, and the mean error that rounding brings, go into the offsets.
        errors = self._sums / steps - multiplied(self._rows, weight)
        offsets = np.round(self._biases / steps + errors.mean(axis=tuple(range(errors.ndim - 1))) + shift / steps)
        return weight, np.clip(offsets, -SUM_LIMIT, SUM_LIMIT).astype(np.int32)  # one beyond is refused

    @cached_property
    def _carried(self) -> Floats:
        """[K, K]: row i says how the inputs after it make up for an error of weight i, on these rows."""
        inputs = self._rows.reshape(-1, len(self._weight)).astype(np.float64)
        moments = inputs.T @ inputs
        moments += np.eye(len(moments)) * (_DAMPING * moments.trace() / len(moments) or 1)
        return np.linalg.cholesky(np.linalg.inv(moments)).T


def _rounded_weights(weight: Floats, carried: Floats) -> NDArray[np.int8]:
    """Weights [K, columns] as integers, each of which makes up for the rounding of those before it.

    Frantar et al. 2023 (GPTQ), section 3.
    """
    left, rounded = weight.copy(), np.empty(weight.shape, np.int8)
    for place, shares in enumerate(carried):
        rounded[place] = np.clip(np.round(left[place]), -WEIGHT_LIMIT, WEIGHT_LIMIT)
        error = (left[place] - rounded[place]) / shares[place]
        left[place + 1 :] -= np.outer(shares[place + 1 :], error)
    return rounded


def quantized_latents(latents: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Latents as uint8, of the same shape."""
    steps = latents * np.float32(LATENT_SCALE) + np.float32(LATENT_ZERO + 0.5)
    clipped: NDArray[np.float32] = np.clip(steps, 0, LEVELS)
    return clipped.astype(np.uint8)


def outputs(layer: IntegerLayer, inputs: NDArray[np.uint8], labels: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """The outputs of a layer, as the next one takes them: [N, columns], images [N, H, W, C] or blocks of one."""
    sums: NDArray[np.int64] = multiplied(layer.rows(inputs), layer.weight) + chosen_row(layer.offsets, labels)
    if layer.levels is not None:
        scaled = sums.astype(np.float32) * layer.scale
        steps = np.rint(scaled) if len(layer.constants) else scaled
        sums = np.clip(steps, 0, layer.levels).astype(np.int64)
    return arranged(sums, layer.patches, in_blocks=layer.in_blocks)


def multiplied(rows: NDArray[np.uint8], weight: NDArray[np.int8]) -> NDArray[np.int64]:
    """Rows times weights: as float64 exact up to 2^53 in any order, and faster than numpy's integers."""
    return (rows.astype(np.float64) @ weight.astype(np.float64)).astype(np.int64)


def chosen_row(table: NDArray[Any], labels: NDArray[np.int64] | None) -> NDArray[Any]:
    """The row of each label, or the only one for all."""
    row: NDArray[Any] = table[0] if labels is None else table[labels]
    return row


def _made_by_inputs(offsets: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """Inputs [m], and weights [m, columns] with which they add up to the offsets [columns]."""
    count = math.ceil(np.abs(offsets).max() / (LEVELS * WEIGHT_LIMIT))
    inputs = np.array([LEVELS] * count + [2 * WEIGHT_LIMIT + 1, 1], np.uint8)
    weights, left = np.empty((len(inputs), len(offsets)), np.int8), offsets
    for row, value in zip(weights, inputs.tolist(), strict=True):
        row[:] = np.clip(np.rint(left / value), -WEIGHT_LIMIT, WEIGHT_LIMIT)
        left = left - value * row.astype(np.int32)
    return inputs, weights


def _unit(activations: Floats, number: int) -> float:
    """What 1 stands for in the outputs of a hidden layer."""
    if activations.min() == activations.max():
        raise ExportError(
            f"layer {number} gives {activations.max():.3g} for whatever latents, so its integers have no scale; "
            "train for longer, or export it with --arithmetic float"
        )
    return float(_HEADROOM * activations.max() / LEVELS)


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
