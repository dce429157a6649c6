"""Generators and discriminators, sized by one rule for any image shape.

"mlp" and "cnn" are those of Dong and Yang 2018, Tables 1 to 4.

The rule: at 28x28x1 every network is the published one, or the one that docs/recipe.md found. For other shapes
- MLPs keep their units, but for the layer at the image, which has at most 2^24 weights: up to 16,384 pixels
  (1x128x128) it has its 1,024 or 512 units, beyond that fewer;
- a CNN halves each axis by itself until it is short, so a long thin image is first halved along its length
  alone; every further halving has twice the channels, up to a bound, so that each level costs about the same.

Shapes: B batch, Z latent size, C channels, H rows, W columns, K classes.
Generators map latents [B, Z] to logits [B, C, H, W]; discriminators map images [B, C, H, W] to logits [B].
With K above 0 both take the images' classes too, int64 [B] from 0.
Several discriminators may judge side by side, each with its own loss (Durugkar et al. 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
LEAK = 0.2


CNN_CHANNELS = (32, 64, 128)  # of the hidden layers, counted from the image


_MLP_WEIGHTS_AT_MOST = 2**24  # of the layer at the image
FEW_CHANNELS = 4  # up to here a convolution from or to an image is faster as a product of its patches


_TRUNCATED_STD = 0.02
_BATCH_NORM_MOMENTUM = 0.01  # TF's 0.99, as the published code names it


class AffineNorm(nn.Module):
    """What the published code's batch normalization computes: gamma x / sqrt(1 + 1e-3) + beta, by channel.

    TF1's layer was built without `training=True` and its update operations were never run, so its
    moving mean and variance stay 0 and 1. Channels are dimension 1.
    """

    eps = 1e-3

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, channels, ...] to the same shape."""
        return inputs * self.scale(inputs.ndim) + self.bias.view(-1, *[1] * (inputs.ndim - 2))

    def scale(self, dimensions: int) -> Tensor:
        """Gamma / sqrt(1 + 1e-3), shaped to multiply inputs of that many dimensions."""
        return (self.weight / math.sqrt(1 + self.eps)).view(-1, *[1] * (dimensions - 2))


class PixelDeconvolution(nn.ConvTranspose2d):
    """A transposed convolution of one pixel, computed as the product that it is, which trains faster."""

    def forward(self, inputs: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[B, channels, 1, 1] to [B, C, H, W]; there is one output size, that of the kernel."""
        height, width = self.kernel_size
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)  # [H * W * C, channels]
        assert self.bias is not None
        pixels = F.linear(inputs.flatten(1), weight, self.bias.repeat(height * width))
        return torch.unflatten(pixels, 1, (height, width, self.out_channels)).permute(0, 3, 1, 2)


class ImageDeconvolution(nn.ConvTranspose2d):
    """A transposed convolution to few channels, computed as a product and a sum of overlapping patches."""

    def forward(self, inputs: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[B, channels, rows, columns] to [B, C, H, W]; there is one output size."""
        assert isinstance(self.padding, tuple)
        assert self.bias is not None
        lengths = zip(inputs.shape[2:], self.kernel_size, self.stride, self.padding, strict=True)
        size = tuple(stride * (before - 1) + kernel - 2 * padding for before, kernel, stride, padding in lengths)
        return _overlapping_patches(self, inputs, size) + self.bias[:, None, None]


class ImageConvolution(nn.Conv2d):
    """A convolution from few channels, computed as a product with the images' patches.

    The same function; oneDNN takes five times as long for the gradient by an image of one channel.
    """

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] to [B, channels, rows, columns]."""
        assert isinstance(self.padding, tuple)
        assert self.bias is not None
        rows = (images.shape[2] + 2 * self.padding[0] - self.kernel_size[0]) // self.stride[0] + 1
        patches = F.unfold(images, self.kernel_size, stride=self.stride, padding=self.padding)
        outputs = self.weight.flatten(1) @ patches + self.bias[:, None]  # [B, channels, rows * columns]
        return torch.unflatten(outputs, 2, (rows, -1))

    def transpose(self, gradient: Tensor, size: tuple[int, int]) -> Tensor:
        """The transposed product: gradients of the outputs to those of images of that size."""
        return _overlapping_patches(self, gradient, size)


def _overlapping_patches(layer: nn.Conv2d | nn.ConvTranspose2d, inputs: Tensor, size: tuple[int, ...]) -> Tensor:
    """A patch for each pixel of [B, channels, rows, columns], added up where they overlap: [B, C, *size]."""
    assert isinstance(layer.padding, tuple)
    patches = layer.weight.flatten(1).t() @ inputs.flatten(2)  # [B, C * kernel, rows * columns]
    return F.fold(patches, size, layer.kernel_size, stride=layer.stride, padding=layer.padding)


class ClassProjection(nn.Linear):
    """A last layer of weights by class: (w + e_class) . features + b (Miyato and Koyama 2018).

    It is linear in the features of an image, so `Discriminator.input_gradient` keeps its closed form, and it costs
    K rows of weights, where classes as planes of the image would cost K of its sizes.
    """

    def __init__(self, features: int, class_count: int) -> None:
        super().__init__(features, 1)
        self.class_weight = nn.Parameter(torch.zeros(class_count, features))

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, features] and labels [B] to logits [B, 1]."""
        return self.linearized(features, labels)[0]

    def linearized(self, features: Tensor, labels: Tensor | None) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The logits, and the transpose of their Jacobian by the features, as a function of the weights."""
        assert labels is not None, "a discriminator with classes judges images with their labels"
        logits = (features * self._weights(labels)).sum(dim=1, keepdim=True) + self.bias
        return logits, lambda gradient: gradient * self._weights(labels)

    def _weights(self, labels: Tensor) -> Tensor:
        """The weights of each image, [B, features]."""
        return self.weight + F.embedding(labels, self.class_weight)


def parameter_count(module: nn.Module) -> int:
    """How many trainable parameters a module has."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def norm_layers(norm: str, channels: int, *, flat: bool) -> list[nn.Module]:
    """The normalization layer of that name, or nothing."""
    if norm == "none":
        return []
    if norm == "affine":
        return [AffineNorm(channels)]
    return [(nn.BatchNorm1d if flat else nn.BatchNorm2d)(channels, momentum=_BATCH_NORM_MOMENTUM)]


def units_at_image(units: int, pixels: int) -> int:
    """The units of the layer at an image of so many pixels."""
    return max(1, min(units, _MLP_WEIGHTS_AT_MOST // pixels))


def initialized(network: Network, initialization: str) -> Network:
    """Zero biases, and weights by He et al. 2015 or, as the published code, from N(0, 0.02^2) within two sigma."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            if initialization == "he":
                nn.init.kaiming_normal_(module.weight, a=LEAK, nonlinearity="leaky_relu")
            else:
                nn.init.trunc_normal_(
                    module.weight, std=_TRUNCATED_STD, a=-2 * _TRUNCATED_STD, b=2 * _TRUNCATED_STD
                )
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return network
