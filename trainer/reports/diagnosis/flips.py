"""The truth: what the flip of each pixel of an image does to its loss.

Shapes: B images, C channels, H rows, W columns, N = C * H * W pixels, G groups of independent draws.
"""

from collections.abc import Callable
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...networks.discriminators import AnyDiscriminator, Discriminator
from ...training.estimators.base import draw_bits
from ...training.objectives import ImageLosses
from .estimates import GROUPS, in_groups
from .subject import Subject

_FLIPS_AT_ONCE = 196


def flip_gradients(subject: Subject, backgrounds: int, report: Callable[[str], None]) -> Tensor:
    """What estimates are compared with: the means of groups [G, B, N], or exactly [1, B, N]; float64.

    Stochastic neurons: the gradient of each image's expected loss by its logits, slope p_i (1 - p_i)
    E [f(b_i = 1) - f(b_i = 0)], over at least `backgrounds` drawn images. Deterministic neurons have no gradient:
    theirs is the same with the one image that they give, how far the loss moves when a neuron crosses its
    threshold, weighted as the straight-through gradient is.
    """
    probabilities = torch.sigmoid(subject.slope * subject.logits)
    weights = subject.slope * (probabilities * (1 - probabilities)).flatten(1)
    if subject.neuron == "dbn":
        images = (probabilities > 0.5).to(probabilities.dtype)
        return (weights * flip_differences(subject.losses, images)).cpu().double()[None]
    count = in_groups(backgrounds)
    groups = torch.zeros(GROUPS, *weights.shape, dtype=torch.float64)
    for index in range(count):
        report(f"the truth: all {weights.shape[1]} flips of {len(weights)} images, {index + 1} of {count}")
        images = draw_bits(probabilities, subject.random)
        groups[index % GROUPS] += (weights * flip_differences(subject.losses, images)).cpu()
    return groups / (count / GROUPS)


def flip_differences(losses: ImageLosses, images: Tensor) -> Tensor:
    """f(b_i = 1) - f(b_i = 0) of every pixel i of images [B, C, H, W] of 0 and 1, the others as they are: [B, N].

    Each discriminator must judge every image by itself. Raises ValueError for losses with an augmentation.
    """
    if losses.transform is not None:
        raise ValueError("the flips of augmented images are not those of their pixels")
    differences = [
        discriminator_flip_differences(each.discriminator, each.of_logits, images, each.labels)
        for each in losses.discriminators
    ]
    return torch.stack(differences).sum(dim=0)


def discriminator_flip_differences(
    discriminator: AnyDiscriminator, loss: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor | None = None
) -> Tensor:
    """`flip_differences` of one discriminator: [B, N].

    `loss` maps logits [..., B], any number of images for each row, to losses; `labels` [B] are the rows' classes.
    """
    with torch.no_grad():
        own = loss(discriminator(images, labels))  # [B]
        of_rows = repeat(None) if labels is None else labels
        logits = [_flipped_logits(discriminator, *row) for row in zip(images, of_rows, strict=False)]
        flipped = loss(torch.stack(logits, dim=1))  # [N, B]
        return (1 - 2 * images.flatten(1)) * (flipped - own).t()


def _flipped_logits(discriminator: AnyDiscriminator, image: Tensor, label: Tensor | None) -> Tensor:
    """The logits [N] of an image [C, H, W] with one pixel flipped each."""
    pixels = image.flatten()
    steps = 1 - 2 * pixels
    labels = None if label is None else label.expand(len(pixels))
    first = discriminator.layers[1] if isinstance(discriminator, Discriminator) else None
    if isinstance(discriminator, Discriminator) and isinstance(first, nn.Linear):  # after it is flat
        # A flip adds a multiple of one column of the first layer's weights, so that layer is done once for all.
        hidden = F.linear(pixels, first.weight, first.bias) + steps[:, None] * first.weight.t()  # [N, hidden]
        return discriminator.after(2, hidden, labels)
    logits = []
    for indices in torch.split(torch.arange(len(pixels), device=pixels.device), _FLIPS_AT_ONCE):
        flipped = pixels.repeat(len(indices), 1)
        flipped[torch.arange(len(indices), device=pixels.device), indices] += steps[indices]
        some = None if labels is None else labels[: len(indices)]
        logits.append(discriminator(flipped.view(-1, *image.shape), some))
    return torch.cat(logits)
