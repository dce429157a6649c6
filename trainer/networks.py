"""Generators and discriminators (Dong and Yang 2018, Tables 1 to 4), built for any image shape.

Shapes: B batch, Z latent size, C channels, H rows, W columns.
Generators map latents [B, Z] to logits [B, C, H, W]; discriminators map images [B, C, H, W] to logits [B].
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

LEAK = 0.2
_CNN_BASE_BELOW = 6  # an axis is halved while it has at least this many pixels: 28 -> 13 -> 6 -> 2
_CNN_CHANNELS = (32, 64, 128)  # of the hidden layers, counted from the image
_CNN_FEATURES_AT_MOST = 8  # the discriminator pools until no axis is longer than this: 28 -> 13 -> 6
_BATCH_NORM_MOMENTUM = 0.01  # TF's 0.99, as the published code names it


class ImageShape(NamedTuple):
    """The shape of one image: channels, rows, columns."""

    channels: int
    height: int
    width: int


class Generator(nn.Module):
    """Latents to logits. Batch normalization and ReLU after every layer but the last."""

    def __init__(self, layers: nn.Sequential, image_shape: ImageShape, latent_size: int) -> None:
        super().__init__()
        self.layers = layers
        self.image_shape = image_shape
        self.latent_size = latent_size

    def forward(self, latents: Tensor) -> Tensor:
        """[B, Z] latents to [B, C, H, W] logits."""
        logits: Tensor = self.layers(latents)
        return logits


class Discriminator(nn.Module):
    """Images to one logit each (the critic of a Wasserstein objective). No normalization."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] images to [B] logits."""
        logits: Tensor = self.layers(images)
        return logits.squeeze(1)

    def input_gradient(self, images: Tensor) -> Tensor:
        """Gradients of the logits by their own images, [B, C * H * W], differentiable by the parameters."""
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self(images).sum(), images, create_graph=True)
        return gradient.flatten(1)


class MLPDiscriminator(Discriminator):
    """A piecewise linear discriminator, whose input gradient has a closed form."""

    def input_gradient(self, images: Tensor) -> Tensor:
        """W1' M1 W2' M2 ... w, where M holds the LeakyReLUs' slopes at `images`, [B, C * H * W].

        The slopes are constant almost everywhere, so to differentiate this product by the weights
        takes one ordinary backward pass, where autograd would need a second one through the first.
        """
        linears = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        *hidden, output = linears
        slopes = []
        with torch.no_grad():
            activations = images.flatten(1)
            for layer in hidden:
                preactivations = layer(activations)
                slopes.append(torch.where(preactivations > 0, 1.0, LEAK))
                activations = preactivations * slopes[-1]
        gradient = output.weight
        for layer, slope in zip(reversed(hidden), reversed(slopes), strict=True):
            gradient = (gradient * slope) @ layer.weight
        return gradient


def build_generator(network: str, image_shape: ImageShape, latent_size: int) -> Generator:
    """A freshly initialized generator of the family "mlp" or "cnn"."""
    layers = _mlp_generator if network == "mlp" else _cnn_generator
    return _initialized(Generator(layers(image_shape, latent_size), image_shape, latent_size))


def build_discriminator(network: str, image_shape: ImageShape) -> Discriminator:
    """A freshly initialized discriminator of the family "mlp" or "cnn"."""
    if network == "mlp":
        return _initialized(MLPDiscriminator(_mlp_discriminator(image_shape)))
    return _initialized(Discriminator(_cnn_discriminator(image_shape)))


def parameter_count(module: nn.Module) -> int:
    """How many trainable parameters a module has."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _mlp_generator(shape: ImageShape, latent_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(latent_size, 1024),
        nn.BatchNorm1d(1024, momentum=_BATCH_NORM_MOMENTUM),
        nn.ReLU(inplace=True),
        nn.Linear(1024, math.prod(shape)),
        nn.Unflatten(1, shape),
    )


def _mlp_discriminator(shape: ImageShape) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), 512),
        nn.LeakyReLU(LEAK),
        nn.Linear(512, 256),
        nn.LeakyReLU(LEAK),
        nn.Linear(256, 1),
    )


def _cnn_generator(shape: ImageShape, latent_size: int) -> nn.Sequential:
    """Transposed convolutions from 1x1 to the base, then one for every halving of the image's sides.

    Stride 2 with kernel 4 reaches an even length from (n - 2) / 2, kernel 3 an odd one from
    (n - 1) / 2: 28x28 gives the published 2, 6, 13, 28.
    """
    sizes = [(shape.height, shape.width)]
    while max(sizes[0]) >= _CNN_BASE_BELOW or len(sizes) == 1:
        sizes.insert(0, (_halved(sizes[0][0]), _halved(sizes[0][1])))
    channels = [_CNN_CHANNELS[min(i, len(_CNN_CHANNELS) - 1)] for i in range(len(sizes) - 1)][::-1]
    layers: list[nn.Module] = [nn.Unflatten(1, (latent_size, 1, 1))]
    previous = latent_size
    for before, after, width in zip([(1, 1), *sizes[:-1]], sizes, [*channels, shape.channels], strict=True):
        rows, columns = _transposed(before[0], after[0]), _transposed(before[1], after[1])
        kernel, stride, padding = zip(rows, columns, strict=True)
        layers.append(nn.ConvTranspose2d(previous, width, kernel, stride, padding))
        layers += [nn.BatchNorm2d(width, momentum=_BATCH_NORM_MOMENTUM), nn.ReLU(inplace=True)]
        previous = width
    return nn.Sequential(*layers[:-2])


def _halved(length: int) -> int:
    return (length - 2 + length % 2) // 2 if length >= _CNN_BASE_BELOW else length


def _transposed(before: int, after: int) -> tuple[int, int, int]:
    """Kernel, stride and padding that lead one axis from `before` to `after` pixels."""
    if before == after:
        return (3, 1, 1) if before > 1 else (1, 1, 0)
    if before == 1:
        return after, 1, 0
    return after - 2 * (before - 1), 2, 0


def _cnn_discriminator(shape: ImageShape) -> nn.Sequential:
    """3x3 convolutions, each followed by 2x2 max-pooling, until no axis is longer than 8; then two dense layers.

    28x28 gives the published 26, 13, 11, 6. An axis that is too short for an unpadded convolution
    gets a padded one.
    """
    height, width, previous = shape.height, shape.width, shape.channels
    layers: list[nn.Module] = []
    while not layers or max(height, width) > _CNN_FEATURES_AT_MOST or len(layers) < 6:
        block = len(layers) // 3
        channels = _CNN_CHANNELS[min(block, len(_CNN_CHANNELS) - 1)]
        padding = (int(height < 4), int(width < 4))
        layers += [nn.Conv2d(previous, channels, 3, padding=padding), nn.LeakyReLU(LEAK)]
        layers.append(nn.MaxPool2d(2, ceil_mode=block > 0 or min(height, width) < 4))
        ceiling = int(layers[-1].ceil_mode)  # type: ignore[arg-type]
        height, width = ((n - 2 + 2 * p + ceiling) // 2 for n, p in zip((height, width), padding, strict=True))
        previous = channels
    dense: list[nn.Module] = [nn.Flatten(), nn.Linear(previous * height * width, 128), nn.LeakyReLU(LEAK)]
    return nn.Sequential(*layers, *dense, nn.Linear(128, 1))


def _initialized(network: Network) -> Network:
    """He initialization of weights, zero biases."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, a=LEAK, nonlinearity="leaky_relu")
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return network
