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
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from .image_shape import ImageShape

Network = TypeVar("Network", bound=nn.Module)
LEAK = 0.2
_CNN_BASE_BELOW = 6  # an axis is halved while it has at least this many pixels: 28 -> 13 -> 6 -> 2
_CNN_CHANNELS = (32, 64, 128)  # of the hidden layers, counted from the image
_CNN_FEATURES_AT_MOST = 8  # the discriminator pools until no axis is longer than this: 28 -> 13 -> 6
_CNN_BLOCKS_AT_LEAST = 2
_DOUBLING_BASE_BELOW = 8  # an axis is halved while it has at least this many pixels: 28 -> 14 -> 7
_DOUBLING_CHANNELS = (16, 32, 64, 128)  # of the hidden layers, counted from the image
_DOUBLING_UNITS = 256
_STRIDED_CHANNELS = (16, 32, 64)  # of the convolutions, counted from the image
_STRIDED_FEATURES_AT_MOST = 8  # an axis is halved while it is longer than this: 28 -> 14 -> 7
_MLP_WEIGHTS_AT_MOST = 2**24  # of the layer at the image
_FEW_CHANNELS = 4  # up to here a convolution from or to an image is faster as a product of its patches
_MEAN_WITHIN = 0.01  # of 0 and 1: pixels that are always off or on are not tied to it for ever
_TRUNCATED_STD = 0.02
_BATCH_NORM_MOMENTUM = 0.01  # TF's 0.99, as the published code names it


class Generator(nn.Module):
    """Latents, and classes where it has any, to logits."""

    def __init__(
        self, layers: nn.Sequential, image_shape: ImageShape, latent_size: int, class_count: int = 0
    ) -> None:
        super().__init__()
        self.layers = layers
        self.image_shape = image_shape
        self.latent_size = latent_size
        self.class_count = class_count

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, Z] latents, and [B] labels where it has classes, to [B, C, H, W] logits."""
        logits: Tensor = self.layers(self.inputs(latents, labels))
        return logits

    def inputs(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """What the layers see: [B, Z], and with classes [B, Z + K].

        A label is one-hot, scaled by sqrt(Z), so that it has the norm of the latents: the class then weighs as
        much as all else from the first step on.
        """
        if labels is None:
            assert self.class_count == 0
            return latents
        is_class = labels[:, None] == torch.arange(self.class_count, device=labels.device)
        return torch.cat([latents, math.sqrt(self.latent_size) * is_class.to(latents.dtype)], dim=1)


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


def build_generator(
    network: str,
    image_shape: ImageShape,
    latent_size: int,
    *,
    class_count: int = 0,
    norm: str = "batch",
    initialization: str = "he",
) -> Generator:
    """A freshly initialized generator: "mlp", "cnn" or "doubling-cnn"; of no classes, or of `class_count`.

    `norm` "batch" normalizes the hidden layers; "affine" puts an AffineNorm after every layer, the
    last one too, as the published code does.
    """
    layers = _GENERATORS[network](image_shape, latent_size + class_count, norm)
    return _initialized(Generator(layers, image_shape, latent_size, class_count), initialization)


def set_output_bias(generator: Generator, mean: Tensor) -> None:
    """Set the output bias to the logit of a mean image [C, H, W], in place.

    A bias by channel, as a CNN has, gets the logit of the channel's mean. Means are taken to lie in [0.01, 0.99].
    """
    *_, bias = (parameter for name, parameter in generator.named_parameters() if name.endswith(".bias"))
    by_unit = mean.flatten() if bias.numel() == mean.numel() else mean.mean(dim=(1, 2))
    with torch.no_grad():
        bias.copy_(torch.logit(by_unit.clamp(_MEAN_WITHIN, 1 - _MEAN_WITHIN)))


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
    return _initialized(Discriminator(layers), initialization)


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


def parameter_count(module: nn.Module) -> int:
    """How many trainable parameters a module has."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _norm(norm: str, channels: int, *, flat: bool) -> list[nn.Module]:
    """The normalization layer of that name, or nothing."""
    if norm == "none":
        return []
    if norm == "affine":
        return [AffineNorm(channels)]
    return [(nn.BatchNorm1d if flat else nn.BatchNorm2d)(channels, momentum=_BATCH_NORM_MOMENTUM)]


def _output_norm(norm: str, channels: int) -> list[nn.Module]:
    return [AffineNorm(channels)] if norm == "affine" else []


def _units_at_image(units: int, pixels: int) -> int:
    """The units of the layer at an image of so many pixels."""
    return max(1, min(units, _MLP_WEIGHTS_AT_MOST // pixels))


def _mlp_generator(shape: ImageShape, latent_size: int, norm: str) -> nn.Sequential:
    pixels = math.prod(shape)
    units = _units_at_image(1024, pixels)
    return nn.Sequential(
        nn.Linear(latent_size, units),
        *_norm(norm, units, flat=True),
        nn.ReLU(inplace=True),
        nn.Linear(units, pixels),
        *_output_norm(norm, pixels),
        nn.Unflatten(1, shape),
    )


def _mlp_discriminator(shape: ImageShape, norm: str, *, units: tuple[int, int] = (512, 256)) -> nn.Sequential:
    pixels = math.prod(shape)
    first, second = _units_at_image(units[0], pixels), units[1]
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(pixels, first),
        *_norm(norm, first, flat=True),
        nn.LeakyReLU(LEAK),
        nn.Linear(first, second),
        *_norm(norm, second, flat=True),
        nn.LeakyReLU(LEAK),
        nn.Linear(second, 1),
    )


def _wide_mlp_discriminator(shape: ImageShape, norm: str) -> nn.Sequential:
    """The MLP with twice the units."""
    return _mlp_discriminator(shape, norm, units=(1024, 512))


def _cnn_generator(shape: ImageShape, latent_size: int, norm: str) -> nn.Sequential:
    """Transposed convolutions from 1x1 to the base, then one for every halving of the image's sides.

    Stride 2 with kernel 4 reaches an even length from (n - 2) / 2, kernel 3 an odd one from
    (n - 1) / 2: 28x28 gives the published 2, 6, 13, 28.
    """
    return _transposed_convolutions(
        shape, latent_size, norm, _CNN_CHANNELS, halved=_halved, transposed=_transposed
    )


def _doubling_cnn_generator(shape: ImageShape, latent_size: int, norm: str) -> nn.Sequential:
    """A dense layer, transposed convolutions from 1x1 to the base, then one for every doubling: 7, 14, 28.

    The hidden layers have 16, 32, 64, 128, 128, ... channels, counted from the image.

    An axis comes from half its length, rounded up, while it has 8 pixels or more: kernel 4, stride 2 and
    padding 1 reach an even length, kernel 3 an odd one. Every output sees as many inputs as its
    neighbours (Odena et al. 2016).
    """
    layers = _transposed_convolutions(
        shape, _DOUBLING_UNITS, norm, _DOUBLING_CHANNELS, halved=_half, transposed=_doubling
    )
    assert isinstance(layers[1], nn.ConvTranspose2d)
    height, width = layers[1].kernel_size
    layers[1] = PixelDeconvolution(_DOUBLING_UNITS, layers[1].out_channels, (height, width))
    dense = [nn.Linear(latent_size, _DOUBLING_UNITS), *_norm(norm, _DOUBLING_UNITS, flat=True)]
    return nn.Sequential(*dense, nn.ReLU(inplace=True), *layers)


def _transposed_convolutions(
    shape: ImageShape,
    latent_size: int,
    norm: str,
    widths: tuple[int, ...],
    *,
    halved: Callable[[int], int],
    transposed: Callable[[int, int], tuple[int, int, int]],
) -> nn.Sequential:
    """From 1x1 to the smallest size, and on to the image's through every size that `halved` gives.

    `widths` are the channels of the hidden layers, counted from the image; the last one is repeated.
    """
    sizes = [(shape.height, shape.width)]
    while (smaller := (halved(sizes[0][0]), halved(sizes[0][1]))) != sizes[0] or len(sizes) == 1:
        sizes.insert(0, smaller)
    channels = [widths[min(i, len(widths) - 1)] for i in range(len(sizes) - 1)][::-1]
    layers: list[nn.Module] = [nn.Unflatten(1, (latent_size, 1, 1))]
    previous = latent_size
    for before, after, width in zip([(1, 1), *sizes[:-1]], sizes, [*channels, shape.channels], strict=True):
        rows, columns = transposed(before[0], after[0]), transposed(before[1], after[1])
        kernel, stride, padding = zip(rows, columns, strict=True)
        layers.append(_deconvolution(width)(previous, width, kernel, stride, padding))
        layers += [*_norm(norm, width, flat=False), nn.ReLU(inplace=True)]
        previous = width
    return nn.Sequential(*layers[:-2], *_output_norm(norm, shape.channels))


def _deconvolution(channels: int) -> type[nn.ConvTranspose2d]:
    return ImageDeconvolution if channels <= _FEW_CHANNELS else nn.ConvTranspose2d


def _halved(length: int) -> int:
    return (length - 2 + length % 2) // 2 if length >= _CNN_BASE_BELOW else length


def _half(length: int) -> int:
    return (length + 1) // 2 if length >= _DOUBLING_BASE_BELOW else length


def _doubling(before: int, after: int) -> tuple[int, int, int]:
    """What `_transposed` gives, from half the length."""
    if before in {1, after}:
        return _transposed(before, after)
    return (4 if after % 2 == 0 else 3), 2, 1


def _transposed(before: int, after: int) -> tuple[int, int, int]:
    """Kernel, stride and padding that lead one axis from `before` to `after` pixels."""
    if before == after:
        return (3, 1, 1) if before > 1 else (1, 1, 0)
    if before == 1:
        return after, 1, 0
    return after - 2 * (before - 1), 2, 0


def _cnn_discriminator(shape: ImageShape, norm: str) -> nn.Sequential:
    """3x3 convolutions, each followed by 2x2 max-pooling, until no axis is longer than 8; then two dense layers.

    28x28 gives the published 26, 13, 11, 6. An axis that is too short for an unpadded convolution
    gets a padded one.
    """
    height, width, previous = shape.height, shape.width, shape.channels
    layers: list[nn.Module] = []
    block = 0
    while block < _CNN_BLOCKS_AT_LEAST or max(height, width) > _CNN_FEATURES_AT_MOST:
        channels = _CNN_CHANNELS[min(block, len(_CNN_CHANNELS) - 1)]
        padding = (int(height < 4), int(width < 4))
        layers += [nn.Conv2d(previous, channels, 3, padding=padding), *_norm(norm, channels, flat=False)]
        ceiling = block > 0 or min(height, width) < 4
        # The paper pools last; LeakyReLU is increasing, so this is the same function at a quarter of its cost.
        layers += [nn.MaxPool2d(2, ceil_mode=ceiling), nn.LeakyReLU(LEAK)]
        height, width = ((n - 2 + 2 * p + ceiling) // 2 for n, p in zip((height, width), padding, strict=True))
        previous = channels
        block += 1
    dense = [nn.Flatten(), nn.Linear(previous * height * width, 128), *_norm(norm, 128, flat=True)]
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
        convolution = ImageConvolution if previous <= _FEW_CHANNELS else nn.Conv2d
        layers.append(convolution(previous, channels, (2 + rows, 2 + columns), (rows, columns), 1))
        layers += [*_norm(norm, channels, flat=False), nn.LeakyReLU(LEAK)]
        height, width = height // rows, width // columns
        previous = channels
        block += 1
    dense = [nn.Flatten(), nn.Linear(previous * height * width, 128), *_norm(norm, 128, flat=True)]
    return nn.Sequential(*layers, *dense, nn.LeakyReLU(LEAK), nn.Linear(128, 1))


_GENERATORS = {"mlp": _mlp_generator, "cnn": _cnn_generator, "doubling-cnn": _doubling_cnn_generator}


_DISCRIMINATORS: dict[str, Callable[[ImageShape, str], nn.Sequential]] = {
    "mlp": _mlp_discriminator,
    "cnn": _cnn_discriminator,
    "wide-mlp": _wide_mlp_discriminator,
    "strided-cnn": _strided_cnn_discriminator,
}


def _initialized(network: Network, initialization: str) -> Network:
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
