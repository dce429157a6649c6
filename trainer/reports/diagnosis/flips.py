"""What the flip of each pixel of an image does to its loss.

Shapes: B batch, C channels, H rows, W columns, N = C * H * W pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...networks.discriminators import Discriminator
from ...training.losses import ImageLosses

_FLIPS_AT_ONCE = 196


def flip_differences(losses: ImageLosses, images: Tensor) -> Tensor:
    """f(b_i = 1) - f(b_i = 0) of every pixel i of images [B, C, H, W] of 0 and 1, the others as they are: [B, N].

    The discriminators must judge every image by itself, and images as they are.
    """
    assert losses.transform is None
    return torch.stack(
        [
            discriminator_flip_differences(each.discriminator, each.of_logits, images, each.labels)
            for each in losses.discriminators
        ]
    ).sum(dim=0)


def discriminator_flip_differences(
    discriminator: Discriminator,
    loss: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor | None = None,
) -> Tensor:
    """`flip_differences` of one discriminator: [B, N].

    `loss` takes the discriminator's logits [..., B], of any number of images in each row's place, to losses.
    `labels` [B] are the images' classes, where the discriminator has any.
    """
    with torch.no_grad():
        own = loss(discriminator(images, labels))  # [B]
        logits = [
            _flipped_logits(discriminator, image, None if labels is None else labels[row])
            for row, image in enumerate(images)
        ]
        flipped = loss(torch.stack(logits, dim=1))  # [N, B]
        return (1 - 2 * images.flatten(1)) * (flipped - own).t()


def _flipped_logits(discriminator: Discriminator, image: Tensor, label: Tensor | None) -> Tensor:
    """The logits [N] of the images [C, H, W] of one class with one pixel flipped each."""
    pixels = image.flatten()
    steps = 1 - 2 * pixels
    if isinstance(discriminator.layers[0], nn.Flatten) and isinstance(discriminator.layers[1], nn.Linear):
        # A flip adds a multiple of one column of the first layer's weights, so that layer is done once for all.
        first = discriminator.layers[1]
        hidden = F.linear(pixels, first.weight, first.bias) + steps[:, None] * first.weight.t()  # [N, hidden]
        return discriminator.after(2, hidden, None if label is None else label.expand(len(hidden)))
    logits_of = []
    for indices in torch.split(torch.arange(len(pixels)), _FLIPS_AT_ONCE):
        flipped = pixels.repeat(len(indices), 1)
        flipped[torch.arange(len(indices)), indices] += steps[indices]
        labels = None if label is None else label.expand(len(flipped))
        logits_of.append(discriminator(flipped.view(-1, *image.shape), labels))
    return torch.cat(logits_of)
