"""A generator's layers as products of rows and weights: what integers are computed by.

Images are [N, H, W, C], channels last, so a patch of pixels is a row. A transposed convolution is a product of
patches: along an axis, input i and tap t meet in output o = stride * i + t - padding. A patch of `length` inputs
gives a block of `outputs` consecutive outputs of an uncropped image, those whose taps all lie within it, and the
next patch begins `group` inputs later. The last layer reads the blocks of the layer before it as they are: put
together and cut out again they would be copied in small pieces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .polyphase import Axis, axes

Floats = NDArray[np.float64]
Values = TypeVar("Values", bound=np.generic)
_FEW_OUTPUTS = 4  # of a patch: with so few columns a product leaves most of a register unused


class Piece(NamedTuple):
    """What a patch has of one block, along an axis."""

    shift: int
    """How many blocks it is from the first one of its patch; negative: before it."""
    start: int
    """The first input within the block, and the end."""
    stop: int


@dataclass(frozen=True, slots=True)
class PatchAxis:
    """Where along an axis the patches of a transposed convolution lie."""

    axis: Axis
    group: int = 1
    """How many inputs the next patch is further on; a multiple of `block`."""
    block: int = 1
    """How many inputs lie together."""
    crop: int = 0
    """How many inputs of the first block are before the image."""

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
        """Outputs of a patch: the block that it gives."""
        return self.group * self.axis.stride

    @property
    def count(self) -> int:
        """How many patches there are."""
        return -(-(self.axis.before + self.steps - 1) // self.group)

    @property
    def pieces(self) -> list[Piece]:
        """The blocks that a patch has inputs of."""
        places = (divmod(place - self.steps + 1 + self.crop, self.block) for place in range(self.length))
        found = (
            (shift, [start for _, start in several]) for shift, several in groupby(places, lambda each: each[0])
        )
        return [Piece(shift, starts[0], starts[-1] + 1) for shift, starts in found]

    @property
    def blocks(self) -> int:
        """How many blocks of inputs there are."""
        return -(-(self.axis.before + 2 * self.crop) // self.block)

    @property
    def pads(self) -> tuple[int, int]:
        """Blocks of zeros before and after the inputs."""
        first, last = self.pieces[0].shift, self.pieces[-1].shift
        end = (self.count - 1) * (self.group // self.block) + last + 1
        return max(0, -first), max(0, end - self.blocks)

    def every(self, piece: Piece) -> slice:
        """The blocks, in padded inputs, that a piece is of, one for each patch."""
        first, step = piece.shift + self.pads[0], self.group // self.block
        return slice(first, first + (self.count - 1) * step + 1, step)

    @property
    def kept(self) -> slice:
        """The image's part of all outputs."""
        return slice(self.axis.padding, self.axis.padding + self.axis.after)

    def taps(self) -> Floats:
        """[length, outputs, kernel]: 1 where an input of a patch meets an output by that tap."""
        chosen = np.zeros((self.length, self.outputs, self.axis.kernel))
        for place, output in product(range(self.length), range(self.outputs)):
            tap = output - self.axis.stride * (place - self.steps + 1)
            if 0 <= tap < self.axis.kernel:
                chosen[place, output, tap] = 1
        return chosen

    def is_inside(self) -> NDArray[np.bool_]:
        """[count, outputs]: whether an output is of the image."""
        inside = np.zeros(self.count * self.outputs, np.bool_)
        inside[self.kept] = True
        return inside.reshape(self.count, self.outputs)


@dataclass(frozen=True, slots=True)
class Patches:
    """The rows of a transposed convolution, and the image that their products make."""

    rows: PatchAxis
    columns: PatchAxis
    channels: int
    """Those of the inputs."""

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(blocks, blocks, block, block, C) of the inputs."""
        return self.rows.blocks, self.columns.blocks, self.rows.block, self.columns.block, self.channels

    def pieces(self) -> list[tuple[Piece, Piece]]:
        """Those of a patch, in the order of a row."""
        return list(product(self.rows.pieces, self.columns.pieces))

    def gather(self, values: NDArray[Values]) -> NDArray[Values]:
        """Values of an image or of its blocks, [N, ...], to rows [N, patches, patches, inputs of a patch]."""
        padded = np.pad(
            values.reshape(-1, *self.shape), [(0, 0), self.rows.pads, self.columns.pads, *[(0, 0)] * 3]
        )
        parts = [
            padded[:, self.rows.every(y), self.columns.every(x), y.start : y.stop, x.start : x.stop]
            for y, x in self.pieces()
        ]
        return np.concatenate([part.reshape(*part.shape[:3], -1) for part in parts], -1)

    def order(self) -> NDArray[np.intp]:
        """The inputs of a patch [length * length * C] in the order of a row."""
        shape = self.rows.length, self.columns.length, self.channels
        places = np.arange(math.prod(shape)).reshape(shape)
        by_row, by_column = (np.split(np.arange(each.length), _ends(each)) for each in (self.rows, self.columns))
        return np.concatenate([places[np.ix_(y, x)].ravel() for y, x in product(by_row, by_column)])

    def image(self, products: NDArray[Values]) -> NDArray[Values]:
        """Products [N, patches, patches, outputs * outputs * C'] to images [N, H', W', C']."""
        down, across = self.rows, self.columns
        blocks = products.reshape(-1, down.count, across.count, down.outputs, products.shape[-1] // down.outputs)
        lines = blocks.transpose(0, 1, 3, 2, 4)
        whole = lines.reshape(len(blocks), down.count * down.outputs, across.count * across.outputs, -1)
        return whole[:, down.kept, across.kept]

    @property
    def count(self) -> int:
        """How many patches an image has."""
        return self.rows.count * self.columns.count

    def is_inside(self, units: int) -> NDArray[np.bool_]:
        """[patches, patches, units]: which of the products are of the image."""
        inside = np.einsum("mo,nr->mnor", self.rows.is_inside(), self.columns.is_inside())
        return np.repeat(inside.reshape(*inside.shape[:2], -1), units // inside[0, 0].size, axis=-1)


def _ends(axis: PatchAxis) -> NDArray[np.intp]:
    """Where the pieces of a patch but the last one end."""
    return np.cumsum([piece.stop - piece.start for piece in axis.pieces])[:-1]


@dataclass(frozen=True, slots=True)
class Product:
    """A layer: rows [..., K] times weights [K, columns], and biases."""

    weight: Floats
    bias: Floats
    patches: Patches | None = None
    in_blocks: bool = False
    """Whether the next layer takes the blocks as they are; what is not of the image must be 0."""

    def rows(self, values: NDArray[Values]) -> NDArray[Values]:
        """What is multiplied, of what the layer before gave."""
        return values if self.patches is None else self.patches.gather(values)

    def outputs(self, products: NDArray[Values]) -> NDArray[Values]:
        """Products as the next layer takes them."""
        return arranged(products, self.patches, in_blocks=self.in_blocks)


def arranged(products: NDArray[Values], patches: Patches | None, *, in_blocks: bool) -> NDArray[Values]:
    """Products of rows as the next layer takes them."""
    if patches is None:
        return products
    if not in_blocks:
        return patches.image(products)
    return np.where(patches.is_inside(products.shape[-1]), products, products.dtype.type(0))


def as_products(layers: nn.Sequential) -> list[Product]:
    """Folded layers of an MLP or a CNN as products; the first one's inputs are those of the layers, [N, K]."""
    products: list[Product] = []
    size: Sequence[int] = ()
    last = next(layer for layer in reversed(layers) if isinstance(layer, nn.Linear | nn.ConvTranspose2d))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            products.append(Product(_array(layer.weight).T, _array(layer.bias)))
        elif isinstance(layer, nn.ConvTranspose2d):
            if not size:
                products.append(_pixel(layer))
            elif layer is last and (before := products[-1]).patches is not None:
                products[-1] = replace(before, in_blocks=True)
                products.append(_convolution(layer, *axes(layer, size), before.patches))
            else:
                products.append(_convolution(layer, *axes(layer, size)))
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


def _convolution(layer: nn.ConvTranspose2d, height: Axis, width: Axis, before: Patches | None = None) -> Product:
    """A transposed convolution of images, or of the blocks of the layer before."""
    if before is None:
        outputs = height.stride * width.stride * layer.out_channels
        group = 2 if outputs <= _FEW_OUTPUTS else 1
        rows, columns = PatchAxis(height, group), PatchAxis(width, group)
    else:
        rows, columns = (
            PatchAxis(axis, old.outputs, old.outputs, old.axis.padding)
            for axis, old in ((height, before.rows), (width, before.columns))
        )
    patches = Patches(rows, columns, layer.in_channels)
    # c, d channels; k, l taps; p, q places in a patch; o, r outputs
    weight = np.einsum("cdkl,pok,qrl->pqcord", _array(layer.weight), rows.taps(), columns.taps(), optimize=True)
    inputs = rows.length * columns.length * layer.in_channels
    bias = np.tile(_array(layer.bias), rows.outputs * columns.outputs)
    return Product(weight.reshape(inputs, -1)[patches.order()], bias, patches)


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
