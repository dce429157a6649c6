"""Discriminators: images [B, C, H, W], and labels [B] where there are classes, to logits [B]."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from ..common.image_shape import ImageShape
from .layers import (
    CNN_CHANNELS,
    FEW_CHANNELS,
    LEAK,
    AffineNorm,
    ClassProjection,
    ImageConvolution,
    initialized,
    norm_layers,
    units_at_image,
)

_CNN_FEATURES_AT_MOST = 8  # the discriminator pools until no axis is longer than this: 28 -> 13 -> 6
_CNN_BLOCKS_AT_LEAST = 2


_STRIDED_CHANNELS = (16, 32, 64)  # of the convolutions, counted from the image
_STRIDED_FEATURES_AT_MOST = 8  # an axis is halved while it is longer than this: 28 -> 14 -> 7


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

        Without batch normalization the layers are piecewise linear: W1' M1 W2' M2 ... w, where M holds
        the LeakyReLUs' slopes and the max-poolings' choices at `images`. Those are constant almost
        everywhere, so to differentiate the product by the weights takes one ordinary backward pass,
        where autograd would need a second one through the first.
        """
        if self.mixes_rows:
            return self.autograd_input_gradient(images, labels)
        with torch.no_grad():
            logits, transposes = self._linearized(images, labels)
        return _product(transposes, torch.ones_like(logits))

    def logits_and_input_gradient(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [B] and what `input_gradient` gives, both differentiable, for the price of one forward pass."""
        if self.mixes_rows:
            return self(images, labels), self.autograd_input_gradient(images, labels)
        logits, transposes = self._linearized(images, labels)
        return logits.squeeze(1), _product(transposes, torch.ones_like(logits))

    def _linearized(
        self, images: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, list[Callable[[Tensor], Tensor]]]:
        """Logits [B, 1], and the transposes of the layers' Jacobians."""
        activations = images
        transposes: list[Callable[[Tensor], Tensor]] = []
        for layer in self.layers:
            if isinstance(layer, ClassProjection):
                activations, transpose = layer.linearized(activations, labels)
            else:
                activations, transpose = _linearized(layer, activations)
            transposes.append(transpose)
        return activations, transposes

    def autograd_input_gradient(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """What `input_gradient` gives, by autograd; each gradient is that of the sum of all logits."""
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self(images, labels).sum(), images, create_graph=True)
        return gradient.flatten(1)


class Discriminators(nn.ModuleList):
    """Those that judge side by side, most often one."""

    def __iter__(self) -> Iterator[Discriminator]:
        """Each in turn."""
        return cast(Iterator[Discriminator], super().__iter__())


def _product(transposes: list[Callable[[Tensor], Tensor]], gradient: Tensor) -> Tensor:
    """[B, C * H * W] of the gradient [B, 1] of the logits."""
    for transpose in reversed(transposes):
        gradient = transpose(gradient)
    return gradient.flatten(1)


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
        return layer(inputs), lambda gradient: _transposed_convolution(layer, gradient, list(inputs.shape))
    if isinstance(layer, nn.MaxPool2d):
        outputs, chosen = F.max_pool2d(inputs, 2, ceil_mode=layer.ceil_mode, return_indices=True)
        return outputs, lambda gradient: F.max_unpool2d(
            gradient, chosen, [2, 2], output_size=list(inputs.shape[2:])
        )
    raise TypeError(f"no transpose of {type(layer).__name__}")


def _transposed_convolution(layer: nn.Conv2d, gradient: Tensor, shape: list[int]) -> Tensor:
    """Gradients of the outputs to those of inputs of that shape."""
    if isinstance(layer, ImageConvolution):
        return layer.transpose(gradient, (shape[2], shape[3]))
    return conv2d_input(  # type: ignore[no-untyped-call,no-any-return]
        shape, layer.weight, gradient, stride=layer.stride, padding=layer.padding
    )


def build_discriminator(
    network: str, image_shape: ImageShape, *, class_count: int = 0, norm: str = "none", initialization: str = "he"
) -> Discriminator:
    """A freshly initialized discriminator: "mlp", "cnn", "wide-mlp" or "strided-cnn".

    `norm` "batch" or "affine" comes after every layer but the last; "none" is none. With `class_count` above 0
    the last layer is a `ClassProjection`.
    """
    layers = _DISCRIMINATORS[network](image_shape, norm)
    if class_count:
        last = layers[-1]
        assert isinstance(last, nn.Linear)
        layers[-1] = ClassProjection(last.in_features, class_count)
    return initialized(Discriminator(layers), initialization)


def build_discriminators(
    networks: str, image_shape: ImageShape, *, class_count: int = 0, norm: str = "none", initialization: str = "he"
) -> Discriminators:
    """What `build_discriminator` gives, of each of the names that "+" joins."""
    return Discriminators(
        build_discriminator(
            network, image_shape, class_count=class_count, norm=norm, initialization=initialization
        )
        for network in networks.split("+")
    )


def _mlp_discriminator(shape: ImageShape, norm: str, *, units: tuple[int, int] = (512, 256)) -> nn.Sequential:
    pixels = math.prod(shape)
    first, second = units_at_image(units[0], pixels), units[1]
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(pixels, first),
        *norm_layers(norm, first, flat=True),
        nn.LeakyReLU(LEAK),
        nn.Linear(first, second),
        *norm_layers(norm, second, flat=True),
        nn.LeakyReLU(LEAK),
        nn.Linear(second, 1),
    )


def _wide_mlp_discriminator(shape: ImageShape, norm: str) -> nn.Sequential:
    """The MLP with twice the units."""
    return _mlp_discriminator(shape, norm, units=(1024, 512))


def _cnn_discriminator(shape: ImageShape, norm: str) -> nn.Sequential:
    """3x3 convolutions, each followed by 2x2 max-pooling, until no axis is longer than 8; then two dense layers.

    28x28 gives the published 26, 13, 11, 6. An axis that is too short for an unpadded convolution
    gets a padded one.
    """
    height, width, previous = shape.height, shape.width, shape.channels
    layers: list[nn.Module] = []
    block = 0
    while block < _CNN_BLOCKS_AT_LEAST or max(height, width) > _CNN_FEATURES_AT_MOST:
        channels = CNN_CHANNELS[min(block, len(CNN_CHANNELS) - 1)]
        padding = (int(height < 4), int(width < 4))
        layers += [nn.Conv2d(previous, channels, 3, padding=padding), *norm_layers(norm, channels, flat=False)]
        ceiling = block > 0 or min(height, width) < 4
        # The paper pools last; LeakyReLU is increasing, so this is the same function at a quarter of its cost.
        layers += [nn.MaxPool2d(2, ceil_mode=ceiling), nn.LeakyReLU(LEAK)]
        height, width = ((n - 2 + 2 * p + ceiling) // 2 for n, p in zip((height, width), padding, strict=True))
        previous = channels
        block += 1
    dense = [nn.Flatten(), nn.Linear(previous * height * width, 128), *norm_layers(norm, 128, flat=True)]
    return nn.Sequential(*layers, *dense, nn.LeakyReLU(LEAK), nn.Linear(128, 1))


def _strided_cnn_discriminator(shape: ImageShape, norm: str) -> nn.Sequential:
    """4x4 convolutions of stride 2 until no axis is longer than 8, at least one; then two dense layers.

    28x28 gives 14, 7. An axis of at most 8 pixels keeps its length, under a kernel of 3.
    """
    height, width, previous = shape.height, shape.width, shape.channels
    layers: list[nn.Module] = []
    block = 0
    while block == 0 or max(height, width) > _STRIDED_FEATURES_AT_MOST:
        channels = _STRIDED_CHANNELS[min(block, len(_STRIDED_CHANNELS) - 1)]
        rows, columns = 1 + int(height > _STRIDED_FEATURES_AT_MOST), 1 + int(width > _STRIDED_FEATURES_AT_MOST)
        convolution = ImageConvolution if previous <= FEW_CHANNELS else nn.Conv2d
        layers.append(convolution(previous, channels, (2 + rows, 2 + columns), (rows, columns), 1))
        layers += [*norm_layers(norm, channels, flat=False), nn.LeakyReLU(LEAK)]
        height, width = height // rows, width // columns
        previous = channels
        block += 1
    dense = [nn.Flatten(), nn.Linear(previous * height * width, 128), *norm_layers(norm, 128, flat=True)]
    return nn.Sequential(*layers, *dense, nn.LeakyReLU(LEAK), nn.Linear(128, 1))


_DISCRIMINATORS: dict[str, Callable[[ImageShape, str], nn.Sequential]] = {
    "mlp": _mlp_discriminator,
    "cnn": _cnn_discriminator,
    "wide-mlp": _wide_mlp_discriminator,
    "strided-cnn": _strided_cnn_discriminator,
}
