"""Transposed convolutions as plain ones: the same function, in a form that onnxruntime runs faster.

Along one axis, input i and tap t of a transposed convolution meet in output o = stride * i + t - padding.
So the outputs of one phase, o = stride * J + u, are a convolution of the inputs with every stride-th tap,
and all phases together take as many products as before. onnxruntime's convolution comes near what the
processor can do; its transposed one makes a small product for each image and scatters the results.

Shapes: N batch, C channels, H rows, W columns. A plane [N, C, H, W] is one phase of images: every m-th row
and n-th column. A list of planes has the m * n phases of the same images, those of the first row first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SMALL_PIXELS = 4  # up to here a product for each block of outputs is faster than a convolution for each phase


def polyphase(layers: nn.Sequential) -> nn.Sequential:
    """A CNN generator's layers, latents [N, Z] to logits [N, C, H, W], without ConvTranspose2d.

    Dense layers stay as they are. The first convolution sees one pixel, so it is a product. Of the hidden
    ones, those that see few pixels become products for each block of the outputs, and others convolutions
    for each phase; the planes of the last hidden layer, the largest, are not interleaved: the output layer
    reads them as they are. An MLP's layers are returned as they are. Raises TypeError for layers of another kind.
    """
    deconvolutions = [layer for layer in layers if isinstance(layer, nn.ConvTranspose2d)]
    if not deconvolutions:
        return layers
    kinds = [nn.Unflatten, *[nn.ConvTranspose2d, nn.ReLU] * (len(deconvolutions) - 1), nn.ConvTranspose2d]
    dense, convolutional = list(layers)[: -len(kinds)], list(layers)[-len(kinds) :]
    fits = len(convolutional) == len(kinds) and all(map(isinstance, convolutional, kinds))
    fits = fits and all(isinstance(layer, nn.Linear | nn.ReLU) for layer in dense)
    if len(deconvolutions) < 2 or not fits:
        raise TypeError(f"not the layers of a CNN generator: {layers}")
    first, *hidden, last = deconvolutions

    rewritten: list[nn.Module] = [*dense, PixelProduct(first)]
    size, phases = first.kernel_size, (1, 1)
    for layer in hidden:
        rows, columns = axes(layer, size)
        if layer is hidden[-1]:
            rewritten.append(Phases(layer, rows, columns))
            phases = (rows.stride, columns.stride)
        elif _is_small(rows, columns):
            rewritten.append(BlockProducts(layer, rows, columns))
        else:
            rewritten += [Phases(layer, rows, columns, even=True), Interleaving(rows, columns)]
        size = (rows.after, columns.after)
    rewritten.append(OutputPhases(last, *axes(last, size), phases))
    return nn.Sequential(*rewritten)


class Axis(NamedTuple):
    """A transposed convolution along one axis."""

    before: int
    """Length of the input."""
    kernel: int
    stride: int
    padding: int

    @property
    def after(self) -> int:
        """Length of the output."""
        return self.stride * (self.before - 1) + self.kernel - 2 * self.padding


def axes(layer: nn.ConvTranspose2d, size: Sequence[int]) -> tuple[Axis, Axis]:
    """Rows and columns of a layer whose inputs have that height and width."""
    assert isinstance(layer.padding, tuple)
    rows, columns = map(Axis, size, layer.kernel_size, layer.stride, layer.padding)
    return rows, columns


class Taps(NamedTuple):
    """The convolution along one axis that leads from one phase of the inputs to some of the outputs."""

    chosen: Tensor
    """[output phases, places, taps]: 1 where that tap has that place in the convolution's kernel, else 0."""
    padding: tuple[int, int]
    """How many zeros go before and after the inputs; a negative number crops them."""


def taps(axis: Axis, output_phases: Sequence[int], length: int, *, phase: int = 0, phases: int = 1) -> Taps:
    """Taps from the inputs i = phases * I + phase to `length` outputs o = stride * phases * J + u of each u.

    A tap's place is given by its step, J - I.
    """
    steps = {}
    for (row, output_phase), tap in product(enumerate(output_phases), range(axis.kernel)):
        step, rest = divmod(axis.stride * phase + tap - axis.padding - output_phase, axis.stride * phases)
        if rest == 0:
            steps[row, tap] = step
    least, most = min(steps.values(), default=0), max(steps.values(), default=0)
    chosen = torch.zeros(len(output_phases), most - least + 1, axis.kernel)
    for (row, tap), step in steps.items():
        chosen[row, most - step, tap] = 1
    inputs = len(range(phase, axis.before, phases))
    return Taps(chosen, (most, length - least - inputs))


class PixelProduct(nn.Module):
    """A transposed convolution of one pixel without padding, and its ReLU."""

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        super().__init__()
        height, width = layer.kernel_size
        self.weight = nn.Parameter(layer.weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous())
        self.bias = nn.Parameter(_bias(layer).repeat(height * width))
        self.shape = (height, width, layer.out_channels)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents [N, Z] to images [N, C, H, W]."""
        pixels = F.relu(F.linear(latents, self.weight, self.bias))
        return torch.unflatten(pixels, 1, self.shape).permute(0, 3, 1, 2)


class BlockProducts(nn.Module):
    """A hidden layer without padding, whose kernel is a multiple of its stride, and its ReLU.

    A block is the stride * stride outputs of the same J by rows and by columns. All see the same inputs,
    so a block is one product.
    """

    def __init__(self, layer: nn.ConvTranspose2d, rows: Axis, columns: Axis) -> None:
        super().__init__()
        self.axes = rows, columns
        kernel = torch.unflatten(layer.weight, 3, (-1, columns.stride))
        kernel = torch.unflatten(kernel, 2, (-1, rows.stride)).permute(2, 4, 0, 3, 5, 1)
        # [steps, steps, C, stride, stride, C']; inputs that rise are met by steps that fall.
        self.weight = nn.Parameter(kernel.flip(0, 1).contiguous())
        self.bias = nn.Parameter(_bias(layer).repeat(rows.stride * columns.stride))

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] to images [N, C', H', W']."""
        pixels = images.permute(0, 2, 3, 1)
        rows, columns = map(_blocks, self.axes)
        lines = [torch.cat([self._block(pixels, row, column) for column in columns], 2) for row in rows]
        outputs = torch.unflatten(torch.cat(lines, 1), 2, (self.axes[1].after, -1))
        return outputs.permute(0, 3, 1, 2)

    def _block(self, pixels: Tensor, rows: _Block, columns: _Block) -> Tensor:
        """[N, stride, stride * C'] of pixels [N, H, W, C]."""
        seen = pixels[:, rows[0], columns[0]].flatten(1)
        weight = self.weight[rows[1], columns[1]].flatten(0, 2).flatten(1)
        return torch.unflatten(F.relu(torch.addmm(self.bias, seen, weight)), 1, (self.axes[0].stride, -1))


_Block = tuple[slice, slice]
"""The inputs I that a block sees along an axis, and the steps, of all that fall, by which it sees them."""


def _blocks(axis: Axis) -> list[_Block]:
    steps = axis.kernel // axis.stride
    blocks = []
    for block in range(axis.before + steps - 1):
        first, end = max(block - steps + 1, 0), min(block + 1, axis.before)
        blocks.append((slice(first, end), slice(first - block + steps - 1, end - block + steps - 1)))
    return blocks


def _is_small(rows: Axis, columns: Axis) -> bool:
    """Whether a layer can be, and is faster, computed by blocks."""
    by_blocks = all(axis.padding == 0 and axis.kernel % axis.stride == 0 for axis in (rows, columns))
    return by_blocks and rows.before * columns.before <= _SMALL_PIXELS


class PhaseConvolution(nn.Module):
    """What one plane of a layer's inputs adds to some phases of its outputs."""

    def __init__(self, layer: nn.ConvTranspose2d, rows: Taps, columns: Taps, *, biased: bool = True) -> None:
        super().__init__()
        chosen = rows.chosen.to(layer.weight), columns.chosen.to(layer.weight)
        # i, o channels; k, l taps; u, v phases; e, f places
        weight = torch.einsum("iokl,uek,vfl->uvoief", layer.weight, *chosen)
        phases = weight.shape[0] * weight.shape[1]
        self.weight = nn.Parameter(weight.flatten(0, 2))
        self.bias = nn.Parameter(_bias(layer).repeat(phases)) if biased else None
        self.padding = [*columns.padding, *rows.padding]

    def forward(self, plane: Tensor) -> Tensor:
        """A plane [N, C, H, W] to planes in one tensor [N, phases * C', H', W'], phases outermost."""
        return F.conv2d(F.pad(plane, self.padding), self.weight, self.bias)


class Phases(nn.Module):
    """A hidden layer and its ReLU, with a convolution for each phase of the outputs.

    With `even` all planes are as long as the longest; what they have past the outputs' end means nothing.
    """

    def __init__(self, layer: nn.ConvTranspose2d, rows: Axis, columns: Axis, *, even: bool = False) -> None:
        super().__init__()
        by_axis = [
            [taps(axis, [u], len(range(0 if even else u, axis.after, axis.stride))) for u in range(axis.stride)]
            for axis in (rows, columns)
        ]
        self.convolutions = nn.ModuleList(PhaseConvolution(layer, *pair) for pair in product(*by_axis))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [N, C, H, W] to the planes of images."""
        return [F.relu(convolution(images)) for convolution in self.convolutions]


class Interleaving(nn.Module):
    """What puts even planes together."""

    def __init__(self, rows: Axis, columns: Axis) -> None:
        super().__init__()
        self.phases = rows.stride, columns.stride
        self.size = rows.after, columns.after

    def forward(self, planes: list[Tensor]) -> Tensor:
        """Planes to images [N, C, H, W]."""
        return _interleaved(torch.cat(planes, 1), self.phases, self.size)


class OutputPhases(nn.Module):
    """The last layer: of each plane of the inputs a convolution to all phases of the outputs, added up."""

    def __init__(self, layer: nn.ConvTranspose2d, rows: Axis, columns: Axis, phases: tuple[int, int]) -> None:
        """`phases` are those of the inputs by rows and by columns, (1, 1) for plain images."""
        super().__init__()
        self.phases = phases[0] * rows.stride, phases[1] * columns.stride
        self.size = rows.after, columns.after
        by_axis = [
            [
                taps(axis, range(every), len(range(0, axis.after, every)), phase=p, phases=count)
                for p in range(count)
            ]
            for axis, every, count in zip((rows, columns), self.phases, phases, strict=True)
        ]
        self.convolutions = nn.ModuleList(
            PhaseConvolution(layer, *pair, biased=place == 0) for place, pair in enumerate(product(*by_axis))
        )

    def forward(self, planes: Tensor | list[Tensor]) -> Tensor:
        """Planes, or images [N, C, H, W] as the only one, to images [N, C', H', W']."""
        planes = [planes] if isinstance(planes, Tensor) else planes
        first, *others = (convolve(plane) for convolve, plane in zip(self.convolutions, planes, strict=True))
        return _interleaved(sum(others, first), self.phases, self.size)


def _interleaved(planes: Tensor, phases: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Planes in one tensor [N, phases * C, H, W], phases outermost, to images [N, C, *size]."""
    if planes.shape[1] == phases[0] ** 2 == phases[1] ** 2:  # one channel: DepthToSpace, which is faster
        return F.pixel_shuffle(planes, phases[0])[:, :, : size[0], : size[1]]
    pixels = torch.unflatten(planes.permute(0, 2, 3, 1), 3, (*phases, -1))  # [N, H, W, u, v, C]
    images = pixels.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)  # channels last: whole runs move
    return images[:, : size[0], : size[1]].permute(0, 3, 1, 2)


def _bias(layer: nn.ConvTranspose2d) -> Tensor:
    return torch.zeros(layer.out_channels) if layer.bias is None else layer.bias
