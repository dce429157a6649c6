"""Layers that generators and discriminators share, or that train faster than torch's.

Shapes: B batch, C channels, H rows, W columns.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
LEAK = 0.2
FEW_CHANNELS = 4  # up to here a convolution from or to an image is faster as a product of its patches
_MLP_WEIGHTS_AT_MOST = 2**24  # of the layer at the image
_BATCH_NORM_MOMENTUM = 0.01  # TF's 0.99, as the published code names it
_TRUNCATED_STD = 0.02


class AffineNorm(nn.Module):
    """What the published code's batch normalization computes: gamma x / sqrt(1 + 1e-3) + beta, by channel.

    TF1's layer was built without `training=True` and its updates were never run, so its moving mean and variance
    stay 0 and 1. Channels are dimension 1.
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

    bias: nn.Parameter

    def forward(self, inputs: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[B, channels, 1, 1] to [B, C, H, W]; there is one output size, that of the kernel."""
        height, width = self.kernel_size
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)  # [H * W * C, channels]
        pixels = F.linear(inputs.flatten(1), weight, self.bias.repeat(height * width))
        return torch.unflatten(pixels, 1, (height, width, self.out_channels)).permute(0, 3, 1, 2)


class ImageDeconvolution(nn.ConvTranspose2d):
    """A transposed convolution to few channels, computed as a product and a sum of overlapping patches."""

    bias: nn.Parameter
    padding: tuple[int, int]

    def forward(self, inputs: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[B, channels, rows, columns] to [B, C, H, W]; there is one output size."""
        lengths = zip(inputs.shape[2:], self.kernel_size, self.stride, self.padding, strict=True)
        size = tuple(stride * (before - 1) + kernel - 2 * padding for before, kernel, stride, padding in lengths)
        return overlapping_patches(self, inputs, size) + self.bias[:, None, None]


class ImageConvolution(nn.Conv2d):
    """A convolution from few channels, computed as a product with the images' patches.

    The same function; oneDNN takes five times as long for the gradient by an image of one channel.
    """

    bias: nn.Parameter
    padding: tuple[int, int]

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] to [B, channels, rows, columns]."""
        rows = (images.shape[2] + 2 * self.padding[0] - self.kernel_size[0]) // self.stride[0] + 1
        patches = F.unfold(images, self.kernel_size, stride=self.stride, padding=self.padding)
        outputs = self.weight.flatten(1) @ patches + self.bias[:, None]  # [B, channels, rows * columns]
        return torch.unflatten(outputs, 2, (rows, -1))


def overlapping_patches(
    layer: ImageConvolution | ImageDeconvolution, inputs: Tensor, size: tuple[int, ...]
) -> Tensor:
    """A patch for each pixel of [B, channels, rows, columns], added up where they overlap: [B, C, *size].

    The transposed product of an `ImageConvolution`: gradients of its outputs to those of images of that size.
    """
    patches = layer.weight.flatten(1).t() @ inputs.flatten(2)  # [B, C * kernel, rows * columns]
    return F.fold(patches, size, layer.kernel_size, stride=layer.stride, padding=layer.padding)


class ClassProjection(nn.Linear):
    """A last layer of weights by class: (w + e_class) . features + b (Miyato and Koyama 2018).

    It is linear in the features of an image, so `Discriminator.input_gradient` keeps its closed form, and it costs
    one row of weights per class, where classes as planes of the image would cost an image's size each.
    """

    def __init__(self, features: int, class_count: int) -> None:
        super().__init__(features, 1)
        self.class_weight = nn.Parameter(torch.zeros(class_count, features))

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, features] and labels [B] to logits [B, 1]."""
        return self.linearized(features, labels)[0]

    def linearized(self, features: Tensor, labels: Tensor | None) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The logits, and the transpose of their Jacobian by the features, as a function of the weights."""
        if labels is None:
            raise ValueError("a class-conditional discriminator judges images with their labels")
        logits = (features * self._weights(labels)).sum(dim=1, keepdim=True) + self.bias
        return logits, lambda gradient: gradient * self._weights(labels)

    def _weights(self, labels: Tensor) -> Tensor:
        return self.weight + F.embedding(labels, self.class_weight)


def norm_layers(norm: str, channels: int, *, flat: bool) -> list[nn.Module]:
    """The normalization layer of that name, or nothing."""
    if norm == "none":
        return []
    if norm == "affine":
        return [AffineNorm(channels)]
    return [(nn.BatchNorm1d if flat else nn.BatchNorm2d)(channels, momentum=_BATCH_NORM_MOMENTUM)]


def units_at_image(units: int, pixels: int) -> int:
    """The units of the layer at an image of so many pixels: at most 2^24 weights."""
    return max(1, min(units, _MLP_WEIGHTS_AT_MOST // pixels))


def initialized(network: Network, initialization: str) -> Network:
    """Zero biases, and weights by He et al. 2015, or as published from N(0, 0.02^2) within two sigma."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            if initialization == "he":
                nn.init.kaiming_normal_(module.weight, a=LEAK, nonlinearity="leaky_relu")
            else:
                bound = 2 * _TRUNCATED_STD
                nn.init.trunc_normal_(module.weight, std=_TRUNCATED_STD, a=-bound, b=bound)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
