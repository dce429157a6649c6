"""Discriminators: images [B, C, H, W], and labels [B] where there are classes, to logits [B].

The package's docstring has the rule of their sizes. Several may judge side by side, each with its own loss
(Durugkar et al. 2017).
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from ..common.image_shape import ImageShape
from .layers import (
    FEW_CHANNELS,
    LEAK,
    AffineNorm,
    ClassProjection,
    ImageConvolution,
    initialized,
    norm_layers,
    overlapping_patches,
    units_at_image,
)
from .own import OwnDiscriminator

_FEATURES_AT_MOST = 8  # a CNN shrinks the image until no axis is longer than this


class Discriminator(nn.Module):
    """Images to one logit each (the critic of a Wasserstein objective)."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers
        self.mixes_rows = any(isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) for layer in layers)
        """Whether the logit of an image depends on the others of its batch."""

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, C, H, W] images, and [B] labels where it has classes, to [B] logits."""
        return self.after(0, images, labels)

    def after(self, done: int, activations: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B] logits of the activations that the first `done` layers gave."""
        for layer in islice(self.layers, done, None):
            activations = layer(activations, labels) if isinstance(layer, ClassProjection) else layer(activations)
        return activations.squeeze(1)

    def input_gradient(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Gradients of the logits by their own images, [B, C * H * W], differentiable by the parameters.

        Without batch normalization the layers are piecewise linear: W1' M1 W2' M2 ... w, where M holds the
        LeakyReLUs' slopes and the max-poolings' choices at `images`. Those are constant almost everywhere, so the
        product takes one ordinary backward pass, where autograd would need a second one through the first.
        """
        if self.mixes_rows:
            return self.autograd_input_gradient(images, labels)
        with torch.no_grad():
            _, gradient = self._linearized(images, labels)
        return gradient()

    def logits_and_input_gradient(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [B] and what `input_gradient` gives, both differentiable, for the price of one forward pass."""
        if self.mixes_rows:
            return self(images, labels), self.autograd_input_gradient(images, labels)
        logits, gradient = self._linearized(images, labels)
        return logits, gradient()

    def _linearized(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Callable[[], Tensor]]:
        """Logits [B], and a function for their gradients [B, C * H * W] by the images."""
        activations, transposes = images, []
        for layer in self.layers:
            if isinstance(layer, ClassProjection):
                activations, transpose = layer.linearized(activations, labels)
            else:
                activations, transpose = _linearized(layer, activations)
            transposes.append(transpose)

        def gradient() -> Tensor:
            product = torch.ones_like(activations)
            for transpose in reversed(transposes):
                product = transpose(product)
            return product.flatten(1)

        return activations.squeeze(1), gradient

    def autograd_input_gradient(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """What `input_gradient` gives, by autograd; each gradient is that of the sum of all logits."""
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self(images, labels).sum(), images, create_graph=True)
        return gradient.flatten(1)


AnyDiscriminator = Discriminator | OwnDiscriminator


class Discriminators(nn.ModuleList):
    """Those that judge side by side, most often one."""

    def __iter__(self) -> Iterator[AnyDiscriminator]:
        """Each in turn."""
        return cast(Iterator[AnyDiscriminator], super().__iter__())


def _linearized(layer: nn.Module, inputs: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The layer's outputs at `inputs`, and the transpose of its Jacobian there, as a function of its weights."""
    if isinstance(layer, nn.Linear):
        return layer(inputs), lambda gradient: gradient @ layer.weight
    if isinstance(layer, nn.LeakyReLU):
        slopes = torch.where(inputs > 0, 1.0, layer.negative_slope)
        return inputs * slopes, lambda gradient: gradient * slopes
    if isinstance(layer, nn.Flatten):
        return layer(inputs), lambda gradient: gradient.reshape(inputs.shape)
    if isinstance(layer, AffineNorm):
        return layer(inputs), lambda gradient: gradient * layer.scale(inputs.ndim)
    if isinstance(layer, nn.Conv2d):
        return layer(inputs), lambda gradient: _transposed_convolution(layer, gradient, inputs.shape)
    if isinstance(layer, nn.MaxPool2d):
        outputs, chosen = F.max_pool2d(inputs, 2, ceil_mode=layer.ceil_mode, return_indices=True)
        size = list(inputs.shape[2:])
        return outputs, lambda gradient: F.max_unpool2d(gradient, chosen, [2, 2], output_size=size)
    raise TypeError(f"no transpose of {type(layer).__name__}")


def _transposed_convolution(layer: nn.Conv2d, gradient: Tensor, shape: torch.Size) -> Tensor:
    if isinstance(layer, ImageConvolution):
        return overlapping_patches(layer, gradient, shape[2:])
    return conv2d_input(  # type: ignore[no-untyped-call,no-any-return]
        shape, layer.weight, gradient, stride=layer.stride, padding=layer.padding
    )


def build_discriminator(
    network: str, image_shape: ImageShape, *, class_count: int = 0, norm: str = "none", initialization: str = "he"
) -> Discriminator:
    """A freshly initialized discriminator: "mlp", "cnn", "wide-mlp" or "strided-cnn".

    `norm` "batch" or "affine" comes after every layer but the last; "none" is none. With classes the last layer
    is a `ClassProjection`.
    """
    hidden, features = _DISCRIMINATORS[network](image_shape, norm)
    last = nn.Linear(features, 1)  # drawn with classes too: the weights of a seed must stay as they are
    if class_count:
        last = ClassProjection(features, class_count)
    return initialized(Discriminator(nn.Sequential(*hidden, last)), initialization)


def _dense(features: int, units: int, norm: str) -> list[nn.Module]:
    return [nn.Linear(features, units), *norm_layers(norm, units, flat=True), nn.LeakyReLU(LEAK)]


def _mlp(shape: ImageShape, norm: str, *, units: tuple[int, int] = (512, 256)) -> tuple[list[nn.Module], int]:
    pixels = math.prod(shape)
    first = units_at_image(units[0], pixels)
    return [nn.Flatten(), *_dense(pixels, first, norm), *_dense(first, units[1], norm)], units[1]


def _cnn(shape: ImageShape, norm: str) -> tuple[list[nn.Module], int]:
    """3x3 convolutions, each followed by 2x2 max-pooling, at least two; then two dense layers.

    28x28 gives the published 26, 13, 11, 6. An axis that is too short for an unpadded convolution
    gets a padded one.
    """
    height, width, previous = shape.height, shape.width, shape.channels
    layers: list[nn.Module] = []
    for block in count():
        if block >= 2 and max(height, width) <= _FEATURES_AT_MOST:
            break
        channels = (32, 64, 128)[min(block, 2)]
        padding = (int(height < 4), int(width < 4))
        layers += [nn.Conv2d(previous, channels, 3, padding=padding), *norm_layers(norm, channels, flat=False)]
        ceiling = block > 0 or min(height, width) < 4
        # The paper pools last; LeakyReLU is increasing, so this is the same function at a quarter of its cost.
        layers += [nn.MaxPool2d(2, ceil_mode=ceiling), nn.LeakyReLU(LEAK)]
        height, width = ((n - 2 + 2 * p + ceiling) // 2 for n, p in zip((height, width), padding, strict=True))
        previous = channels
    return [*layers, nn.Flatten(), *_dense(previous * height * width, 128, norm)], 128


def _strided_cnn(shape: ImageShape, norm: str) -> tuple[list[nn.Module], int]:
    """4x4 convolutions of stride 2, at least one; then two dense layers.

    28x28 gives 14, 7. An axis of at most 8 pixels keeps its length, under a kernel of 3.
    """
    height, width, previous = shape.height, shape.width, shape.channels
    layers: list[nn.Module] = []
    for block in count():
        if block >= 1 and max(height, width) <= _FEATURES_AT_MOST:
            break
        channels = (16, 32, 64)[min(block, 2)]
        rows, columns = 1 + int(height > _FEATURES_AT_MOST), 1 + int(width > _FEATURES_AT_MOST)
        convolution = ImageConvolution if previous <= FEW_CHANNELS else nn.Conv2d
        layers.append(convolution(previous, channels, (2 + rows, 2 + columns), (rows, columns), 1))
        layers += [*norm_layers(norm, channels, flat=False), nn.LeakyReLU(LEAK)]
        height, width, previous = height // rows, width // columns, channels
    return [*layers, nn.Flatten(), *_dense(previous * height * width, 128, norm)], 128


_DISCRIMINATORS: dict[str, Callable[[ImageShape, str], tuple[list[nn.Module], int]]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "wide-mlp": partial(_mlp, units=(1024, 512)),
    "strided-cnn": _strided_cnn,
}
"""Their layers but the last, and the features that those end with."""
