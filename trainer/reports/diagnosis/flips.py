"""The truth: what the flip of each neuron does to the loss of its image, or all patterns of a few neurons.

Shapes: B images, C channels, H rows, W columns, N = C * H * W pixels or N inner neurons, M of them that are
compared, S states of all of them, G groups of independent draws.
"""

from collections.abc import Callable, Sequence
from itertools import product, repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...networks.discriminators import AnyDiscriminator, Discriminator
from ...training.estimators.base import LossFunction, draw_bits, losses_without_grad
from ...training.objectives import ImageLosses
from .estimates import GROUPS, in_groups
from .subject import Subject

ENUMERATED = 8
"""Neurons of which all patterns are enumerated."""
_FLIPS_AT_ONCE = 196


def is_enumerated(subject: Subject) -> bool:
    """Whether the truth is exact: the neurons are so few that all patterns of theirs can be judged."""
    return subject.neuron == "sbn" and subject.logits[0].numel() <= ENUMERATED


def true_gradients(subject: Subject, backgrounds: int, report: Callable[[str], None]) -> Tensor:
    """What estimates are compared with, as `flip_gradients`, or exactly [1, B, N] where all can be enumerated."""
    return (
        enumerated_gradients(subject) if is_enumerated(subject) else flip_gradients(subject, backgrounds, report)
    )


def enumerated_gradients(subject: Subject) -> Tensor:
    """The gradient of each image's expected loss by its logits: slope sum_s P(s) f(s) (s_i - p_i), [1, B, N]."""
    logits = subject.logits
    p = torch.sigmoid(subject.slope * logits).flatten(1).cpu().double()
    gradients = torch.zeros_like(p)
    for pattern in product((0.0, 1.0), repeat=p.shape[1]):
        state = logits.new_tensor(pattern)
        losses = losses_without_grad(subject.losses, state.expand(len(p), -1).reshape(logits.shape))
        state = state.cpu().double()
        probabilities = torch.where(state == 1, p, 1 - p).prod(dim=1)
        gradients += (probabilities * losses.cpu().double())[:, None] * (state - p)
    return subject.slope * gradients[None]


def flip_gradients(subject: Subject, backgrounds: int, report: Callable[[str], None]) -> Tensor:
    """The effect of every neuron's flip: the means of groups [G, B, M], or exactly [1, B, M]; float64.

    Stochastic neurons: the gradient of each image's expected loss by its logits, slope p_i (1 - p_i)
    E [f(b_i = 1) - f(b_i = 0)], over at least `backgrounds` drawn images. Deterministic neurons have no gradient:
    theirs is the same with the one image that they give, how far the loss moves when a neuron crosses its
    threshold, weighted as the straight-through gradient is.
    """
    probabilities = torch.sigmoid(subject.slope * subject.logits)
    weights = subject.slope * subject.chosen(probabilities * (1 - probabilities))
    if subject.neuron == "dbn":
        images = (probabilities > 0.5).to(probabilities.dtype)
        return (weights * _differences(subject, images)).cpu().double()[None]
    count = in_groups(backgrounds)
    groups = torch.zeros(GROUPS, *weights.shape, dtype=torch.float64)
    for index in range(count):
        report(f"the truth: {weights.shape[1]} flips of {len(weights)} images, {index + 1} of {count}")
        images = draw_bits(probabilities, subject.random)
        groups[index % GROUPS] += (weights * _differences(subject, images)).cpu()
    return groups / (count / GROUPS)


def _differences(subject: Subject, images: Tensor) -> Tensor:
    """f(b_i = 1) - f(b_i = 0) of the neurons i that are compared, [B, M]."""
    if isinstance(subject.losses, ImageLosses):
        return subject.chosen(flip_differences(subject.losses, images))
    places = range(subject.logits.shape[1]) if subject.places is None else subject.places.tolist()
    return neuron_flip_differences(subject.losses, images, places)


@torch.no_grad()
def neuron_flip_differences(losses: LossFunction, bits: Tensor, places: Sequence[int]) -> Tensor:
    """f(b_i = 1) - f(b_i = 0) of bits [B, N, 1, 1] for the neurons i in `places`: [B, M]."""
    own, differences = losses(bits), []
    for place in places:
        flipped = bits.clone()
        flipped[:, place] = 1 - bits[:, place]
        differences.append((1 - 2 * bits[:, place, 0, 0]) * (losses(flipped) - own))
    return torch.stack(differences, dim=1)


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
