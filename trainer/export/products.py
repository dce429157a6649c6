"""A generator's layers as products of rows and weights: what integers are computed by.

Images are [N, H, W, C], channels last, so a patch of pixels is a row. A transposed convolution is a product of
patches. Along an axis, input i and tap t meet in output o = stride * i + t - padding. A patch of `length` inputs
gives `outputs` consecutive outputs of an uncropped image, those whose taps all lie within it, and the next patch
begins `group` inputs later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .polyphase import Axis, axes

Floats = NDArray[np.float64]
Values = TypeVar("Values", bound=np.generic)
_FEW_OUTPUTS = 4  # of a patch: with so few columns a product leaves most of a register unused


@dataclass(frozen=True, slots=True)
class PatchAxis:
    """Where along an axis the patches of a transposed convolution lie."""

    axis: Axis
    group: int
    """How many inputs the next patch is further on."""

    @property
    def steps(self) -> int:
        """How many inputs an output sees at most."""
        return -(-self.axis.kernel // self.axis.stride)

    @property
    def length(self) -> int:
        """Inputs of a patch."""
        return self.steps + self.group - 1

    @property
    def outputs(self) -> int:
        """Outputs of a patch."""
        return self.group * self.axis.stride

    @property
    def count(self) -> int:
        """How many patches there are."""
        return -(-(self.axis.before + self.steps - 1) // self.group)

    @property
    def pads(self) -> tuple[int, int]:
        """Zeros before and after the inputs."""
        first = self.steps - 1
        return first, (self.count - 1) * self.group + self.length - self.axis.before - first

    @property
    def kept(self) -> slice:
        """The image's part of all outputs."""
        return slice(self.axis.padding, self.axis.padding + self.axis.after)

    def taps(self) -> Floats:
        """[length, outputs, kernel]: 1 where an input of a patch meets an output by that tap."""
        chosen = np.zeros((self.length, self.outputs, self.axis.kernel))
        for place in range(self.length):
            for output in range(self.outputs):
                tap = output - self.axis.stride * (place - self.steps + 1)
                if 0 <= tap < self.axis.kernel:
                    chosen[place, output, tap] = 1
        return chosen


@dataclass(frozen=True, slots=True)
class Patches:
    """The rows of a transposed convolution, and the image that their products make."""

    rows: PatchAxis
    columns: PatchAxis
    channels: int
    """Those of the inputs."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the inputs."""
        return self.rows.axis.before, self.columns.axis.before, self.channels

    def gather(self, values: NDArray[Values]) -> NDArray[Values]:
        """Values that are an image each, [N, ...], to rows [N, patches, patches, length * length * C]."""
        pads = [(0, 0), self.rows.pads, self.columns.pads, (0, 0)]
        padded = np.pad(values.reshape(-1, *self.shape), pads)
        starts = ((y, x) for y in range(self.rows.length) for x in range(self.columns.length))
        return np.concatenate([padded[:, _every(self.rows, y), _every(self.columns, x)] for y, x in starts], -1)

    def image(self, products: NDArray[Values]) -> NDArray[Values]:
        """Products [N, patches, patches, outputs * outputs * C'] to images [N, H', W', C']."""
        down, across = self.rows, self.columns
        blocks = products.reshape(-1, down.count, across.count, down.outputs, products.shape[-1] // down.outputs)
        lines = blocks.transpose(0, 1, 3, 2, 4)
        whole = lines.reshape(len(blocks), down.count * down.outputs, across.count * across.outputs, -1)
        return whole[:, down.kept, across.kept]


def _every(axis: PatchAxis, first: int) -> slice:
    return slice(first, first + (axis.count - 1) * axis.group + 1, axis.group)


@dataclass(frozen=True, slots=True)
class Product:
    """A layer: rows [..., K] times weights [K, columns], and offsets."""

    weight: Floats
    bias: Floats
    patches: Patches | None = None

    def rows(self, values: NDArray[Values]) -> NDArray[Values]:
        """What is multiplied, of what the layer before gave."""
        return values if self.patches is None else self.patches.gather(values)

    def outputs(self, products: NDArray[Values]) -> NDArray[Values]:
        """Products as the next layer takes them."""
        return products if self.patches is None else self.patches.image(products)


def as_products(layers: nn.Sequential) -> list[Product]:
    """Folded layers of an MLP or a CNN as products; the first one's inputs are those of the layers, [N, K]."""
    products: list[Product] = []
    size: Sequence[int] = ()
    for layer in layers:
        if isinstance(layer, nn.Linear):
            products.append(Product(_array(layer.weight).T, _array(layer.bias)))
        elif isinstance(layer, nn.ConvTranspose2d):
            products.append(_pixel(layer) if not size else _convolution(layer, *axes(layer, size)))
            size = [each.after for each in axes(layer, size or (1, 1))]
        elif not isinstance(layer, nn.ReLU | nn.Unflatten):
            raise TypeError(f"not the layers of a generator: {layers}")
    return products


def _pixel(layer: nn.ConvTranspose2d) -> Product:
    """A transposed convolution of one pixel: all of its outputs see all of its inputs."""
    height, width = axes(layer, (1, 1))
    cropped = _array(layer.weight)[:, :, height.padding :, width.padding :][..., : height.after, : width.after]
    weight = cropped.transpose(0, 2, 3, 1).reshape(layer.in_channels, -1)
    bias = np.tile(_array(layer.bias), height.after * width.after)
    return Product(weight, bias)


def _convolution(layer: nn.ConvTranspose2d, height: Axis, width: Axis) -> Product:
    outputs = height.stride * width.stride * layer.out_channels
    group = 2 if outputs <= _FEW_OUTPUTS else 1
    rows, columns = PatchAxis(height, group), PatchAxis(width, group)
    # c, d channels; k, l taps; p, q places in a patch; o, r outputs
    weight = np.einsum("cdkl,pok,qrl->pqcord", _array(layer.weight), rows.taps(), columns.taps(), optimize=True)
    inputs = rows.length * columns.length * layer.in_channels
    bias = np.tile(_array(layer.bias), rows.outputs * columns.outputs)
    patches = Patches(rows, columns, layer.in_channels)
    return Product(weight.reshape(inputs, -1), bias, patches)


def _array(tensor: torch.Tensor | None) -> Floats:
    assert tensor is not None, "a generator's layers have biases"
    values: Floats = tensor.detach().double().numpy()
    return values


def images_of(values: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """What the last layer gave to images [N, C, H, W]: of a CNN [N, H, W, C], of an MLP the pixels in order."""
    if values.ndim == 4:
        return values.transpose(0, 3, 1, 2)
    assert math.prod(values.shape[1:]) == math.prod(shape)
    return values.reshape(-1, *shape)
