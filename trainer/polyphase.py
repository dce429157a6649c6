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

Pair = tuple[int, int]


def polyphase(layers: nn.Sequential) -> nn.Sequential:
    """A CNN generator's layers, latents [N, Z] to logits [N, C, H, W], without ConvTranspose2d.

    The first layer sees one pixel, so it is a product. Each hidden one gives its phases as planes, which
    are interleaved to images; but the planes of the last hidden one, the largest, are what the output
    layer reads. Raises TypeError for layers of another kind.
    """
    deconvolutions = [layer for layer in layers if isinstance(layer, nn.ConvTranspose2d)]
    kinds = [nn.Unflatten, *[nn.ConvTranspose2d, nn.ReLU] * (len(deconvolutions) - 1), nn.ConvTranspose2d]
    if len(deconvolutions) < 2 or [type(layer) for layer in layers] != kinds:
        raise TypeError(f"not the layers of a CNN generator: {layers}")
    first, *hidden, last = deconvolutions

    rewritten: list[nn.Module] = [PixelProduct(first), nn.ReLU()]
    size, phases = first.kernel_size, (1, 1)
    for layer in hidden:
        rows, columns = axes(layer, size)
        is_last = layer is hidden[-1]
        rewritten.append(Phases(layer, rows, columns, even=not is_last))
        size = rows.after, columns.after
        if is_last:
            phases = layer.stride
        else:
            rewritten.append(Interleaving(layer.stride, size))
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


def axes(layer: nn.ConvTranspose2d, size: Pair) -> tuple[Axis, Axis]:
    """Rows and columns of a layer whose inputs have that size."""
    rows, columns = zip(size, layer.kernel_size, layer.stride, layer.padding, strict=True)
    return Axis(*rows), Axis(*columns)


class Taps(NamedTuple):
    """The convolution along one axis that leads from one phase of the inputs to some of the outputs."""

    chosen: Tensor
    """[output phases, places, taps]: 1 where that tap has that place in the convolution's kernel, else 0."""
    padding: Pair
    """How many zeros go before and after the inputs; a negative number crops them."""


def taps(axis: Axis, output_phases: Sequence[int], length: int, *, phase: int = 0, phases: int = 1) -> Taps:
    """Taps from the inputs i = phases * I + phase to `length` outputs o = stride * phases * J + u of each u.

    A tap's place is given by J - I alone.
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
    """A transposed convolution of one pixel without padding: latents [N, Z] to images [N, C, H, W]."""

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        super().__init__()
        assert layer.bias is not None
        pixels = layer.kernel_size[0] * layer.kernel_size[1]
        self.weight = nn.Parameter(layer.weight.flatten(1).T.contiguous())
        self.bias = nn.Parameter(layer.bias.repeat_interleave(pixels))
        self.shape = (layer.out_channels, *layer.kernel_size)

    def forward(self, latents: Tensor) -> Tensor:
        return F.linear(latents, self.weight, self.bias).unflatten(1, self.shape)


class PhaseConvolution(nn.Module):
    """What one plane of a layer's inputs adds to phases of its outputs: [N, C, H, W] to [N, phases * C', H', W']."""

    def __init__(self, layer: nn.ConvTranspose2d, rows: Taps, columns: Taps, *, biased: bool = True) -> None:
        super().__init__()
        assert layer.bias is not None
        chosen = rows.chosen.to(layer.weight), columns.chosen.to(layer.weight)
        # i, o channels; k, l taps; u, v phases; e, f places
        weight = torch.einsum("iokl,uek,vfl->uvoief", layer.weight, *chosen)
        self.weight = nn.Parameter(weight.flatten(0, 2))
        self.bias = nn.Parameter(layer.bias.repeat(weight[:, :, 0, 0, 0, 0].numel())) if biased else None
        self.padding = [*columns.padding, *rows.padding]

    def forward(self, plane: Tensor) -> Tensor:
        return F.conv2d(F.pad(plane, self.padding), self.weight, self.bias)


class Phases(nn.Module):
    """A hidden layer with its ReLU: images [N, C, H, W] to a plane for each phase of its outputs.

    With `even` all planes are as long as the longest; what they have past the outputs' end means nothing.
    """

    def __init__(self, layer: nn.ConvTranspose2d, rows: Axis, columns: Axis, *, even: bool) -> None:
        super().__init__()
        by_axis = [
            [taps(axis, [u], len(range(0 if even else u, axis.after, axis.stride))) for u in range(axis.stride)]
            for axis in (rows, columns)
        ]
        self.convolutions = nn.ModuleList(PhaseConvolution(layer, *pair) for pair in product(*by_axis))

    def forward(self, images: Tensor) -> list[Tensor]:
        return [F.relu(convolution(images)) for convolution in self.convolutions]


class Interleaving(nn.Module):
    """Even planes to the images that they are the phases of."""

    def __init__(self, phases: Pair, size: Pair) -> None:
        super().__init__()
        self.phases = phases
        self.size = size

    def forward(self, planes: list[Tensor]) -> Tensor:
        return _interleaved(torch.cat(planes, 1), self.phases, self.size)


class OutputPhases(nn.Module):
    """The last layer: planes, or images as the only one, to logits [N, C, H, W].

    Each plane has one convolution to all phases of the logits, and these are added.
    """

    def __init__(self, layer: nn.ConvTranspose2d, rows: Axis, columns: Axis, phases: Pair) -> None:
        super().__init__()
        self.phases = phases[0] * rows.stride, phases[1] * columns.stride
        self.size = rows.after, columns.after
        by_axis = [
            [taps(axis, range(every), len(range(0, axis.after, every)), phase=p, phases=count) for p in range(count)]
            for axis, every, count in zip((rows, columns), self.phases, phases, strict=True)
        ]
        self.convolutions = nn.ModuleList(
            PhaseConvolution(layer, *pair, biased=place == 0) for place, pair in enumerate(product(*by_axis))
        )

    def forward(self, planes: Tensor | list[Tensor]) -> Tensor:
        planes = [planes] if isinstance(planes, Tensor) else planes
        first, *others = (convolve(plane) for convolve, plane in zip(self.convolutions, planes, strict=True))
        return _interleaved(sum(others, first), self.phases, self.size)


def _interleaved(planes: Tensor, phases: Pair, size: Pair) -> Tensor:
    """Planes in one tensor [N, phases * C, H, W], phases outermost, to images [N, C, *size]."""
    pixels = planes.permute(0, 2, 3, 1).unflatten(3, (*phases, -1))  # N, H, W, u, v, C: runs of C stay whole
    images = pixels.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)
    return images[:, : size[0], : size[1]].permute(0, 3, 1, 2)
