"""Generators: latents [B, Z], and labels [B] where there are classes, to logits [B, C, H, W].

The package's docstring has the rule of their sizes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..common.image_shape import ImageShape
from .layers import (
    FEW_CHANNELS,
    AffineNorm,
    ImageDeconvolution,
    PixelDeconvolution,
    initialized,
    norm_layers,
    units_at_image,
)

_MEAN_WITHIN = 0.01  # of 0 and 1: pixels that are always off or on are not tied to it for ever


class Generator(nn.Module):
    """Latents, and classes where it has any, to logits."""

    def __init__(
        self, layers: nn.Sequential, image_shape: ImageShape, latent_size: int, class_count: int = 0
    ) -> None:
        super().__init__()
        self.layers, self.image_shape = layers, image_shape
        self.latent_size, self.class_count = latent_size, class_count

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, Z] latents, and [B] labels where it has classes, to [B, C, H, W] logits."""
        logits: Tensor = self.layers(self.inputs(latents, labels))
        return logits

    def inputs(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """The inputs of the layers: [B, Z], and with K classes [B, Z + K].

        A label is one-hot, scaled by sqrt(Z) to the norm of the latents: the class then weighs as much as all else
        from the first step on.
        """
        if labels is None:
            if self.class_count:
                raise ValueError("a class-conditional generator needs labels")
            return latents
        is_class = labels[:, None] == torch.arange(self.class_count, device=labels.device)
        return torch.cat([latents, math.sqrt(self.latent_size) * is_class.to(latents.dtype)], dim=1)


def build_generator(
    network: str,
    image_shape: ImageShape,
    latent_size: int,
    *,
    class_count: int = 0,
    norm: str = "batch",
    initialization: str = "he",
    width: float = 1.0,
) -> Generator:
    """A freshly initialized generator: "mlp", "cnn" or "doubling-cnn".

    `width` multiplies its hidden units, or channels. `norm` "batch" normalizes the hidden layers; "affine" puts an
    AffineNorm after every layer, the last one too, as the published code does.
    """
    layers = _GENERATORS[network](image_shape, latent_size + class_count, norm, width)
    return initialized(Generator(layers, image_shape, latent_size, class_count), initialization)


def set_output_bias(generator: Generator, mean: Tensor) -> None:
    """Set the output bias to the logit of a mean image [C, H, W], in place.

    A bias by channel, as a CNN has, gets the logit of the channel's mean. Means are taken to lie in [0.01, 0.99].
    """
    *_, bias = (parameter for name, parameter in generator.named_parameters() if name.endswith(".bias"))
    by_unit = mean.flatten() if bias.numel() == mean.numel() else mean.mean(dim=(1, 2))
    with torch.no_grad():
        bias.copy_(torch.logit(by_unit.clamp(_MEAN_WITHIN, 1 - _MEAN_WITHIN)))


def _output_norm(norm: str, channels: int) -> list[nn.Module]:
    return [AffineNorm(channels)] if norm == "affine" else []


def _scaled(units: int, width: float) -> int:
    return max(1, round(units * width))


def _mlp(shape: ImageShape, latent_size: int, norm: str, width: float) -> nn.Sequential:
    pixels = math.prod(shape)
    units = _scaled(units_at_image(1024, pixels), width)
    return nn.Sequential(
        nn.Linear(latent_size, units),
        *norm_layers(norm, units, flat=True),
        nn.ReLU(inplace=True),
        nn.Linear(units, pixels),
        *_output_norm(norm, pixels),
        nn.Unflatten(1, shape),
    )


def _cnn(shape: ImageShape, latent_size: int, norm: str, width: float) -> nn.Sequential:
    """Transposed convolutions from 1x1 to the base, then one for every halving of the image's sides.

    Stride 2 with kernel 4 reaches an even length from (n - 2) / 2, kernel 3 an odd one from
    (n - 1) / 2: 28x28 gives the published 2, 6, 13, 28. An axis is halved while it has 6 pixels or more.
    """
    return _transposed_convolutions(
        shape,
        latent_size,
        norm,
        widths=tuple(_scaled(channels, width) for channels in (32, 64, 128)),
        halved=lambda length: (length - 2 + length % 2) // 2 if length >= 6 else length,
        transposed=_transposed,
    )


def _doubling_cnn(shape: ImageShape, latent_size: int, norm: str, width: float) -> nn.Sequential:
    """A dense layer, transposed convolutions from 1x1 to the base, then one for every doubling: 7, 14, 28.

    An axis comes from half its length, rounded up, while it has 8 pixels or more: kernel 4, stride 2 and
    padding 1 reach an even length, kernel 3 an odd one. Every output sees as many inputs as its
    neighbours (Odena et al. 2016).
    """
    units = _scaled(256, width)
    layers = _transposed_convolutions(
        shape,
        units,
        norm,
        widths=tuple(_scaled(channels, width) for channels in (16, 32, 64, 128)),
        halved=lambda length: (length + 1) // 2 if length >= 8 else length,
        transposed=_doubling,
    )
    assert isinstance(layers[1], nn.ConvTranspose2d)
    height, width = layers[1].kernel_size
    layers[1] = PixelDeconvolution(units, layers[1].out_channels, (height, width))
    dense = [nn.Linear(latent_size, units), *norm_layers(norm, units, flat=True), nn.ReLU(inplace=True)]
    return nn.Sequential(*dense, *layers)


def _transposed_convolutions(
    shape: ImageShape,
    latent_size: int,
    norm: str,
    *,
    widths: tuple[int, ...],
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
        deconvolution = ImageDeconvolution if width <= FEW_CHANNELS else nn.ConvTranspose2d
        layers.append(deconvolution(previous, width, kernel, stride, padding))
        layers += [*norm_layers(norm, width, flat=False), nn.ReLU(inplace=True)]
        previous = width
    return nn.Sequential(*layers[:-2], *_output_norm(norm, shape.channels))


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


_GENERATORS = {"mlp": _mlp, "cnn": _cnn, "doubling-cnn": _doubling_cnn}
