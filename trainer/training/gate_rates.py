"""Gates of averaged weights, held at their rate.

The average of directions that training moves is shorter than each of them, and the average of biases is not: the
gates of averaged weights would be on for half the images that they are to be, or fewer. Their biases are therefore
found again, as the statistics of batch norm are after an average of weights (Izmailov et al. 2018, section 3.2).
"""

import torch
from torch import Tensor

from ..common.rng import random_stream
from ..networks.gates import GatedGenerator

_IMAGES = 16_384
_BISECTIONS = 40


@torch.no_grad()
def hold_rates(generator: GatedGenerator, rate: float, slope: float, class_counts: tuple[int, ...] = ()) -> None:
    """Set the gates' biases so that each is on for a share `rate` of the images, in place.

    Random gates stay as they are. Of labels alone, a gate is on for that number of classes that is nearest.
    `class_counts` are the shares in which classes are drawn; none: alike.
    """
    if generator.by == "random" or rate == 1:
        return
    logits = generator.gate_logits(_inputs(generator, class_counts))
    shift = (
        _probability_shift(slope * logits, rate) / slope if generator.neuron == "sbn" else _bit_shift(logits, rate)
    )
    generator.gate.bias.add_(shift)


def _inputs(generator: GatedGenerator, class_counts: tuple[int, ...]) -> Tensor:
    """The inputs of the gates of images, the same ones each time; for gates by labels, one image of each class."""
    device = generator.gate.weight.device
    classes = generator.class_count
    random = random_stream(0, "gate rates", device=device)
    latents = torch.randn(
        classes if generator.by == "labels" else _IMAGES, generator.latent_size, generator=random, device=device
    )
    labels = None
    if generator.by == "labels":
        labels = torch.arange(classes, device=device)
    elif classes:
        shares = torch.tensor(class_counts or [1] * classes, dtype=torch.float64, device=device)
        labels = torch.multinomial(shares, _IMAGES, replacement=True, generator=random)
    return generator.trunk.inputs(latents, labels)


def _bit_shift(logits: Tensor, rate: float) -> Tensor:
    """What to add to logits [M, E] so that a share `rate` of each column is above 0: halfway between images."""
    count = len(logits)
    off = min(max(round(count * (1 - rate)), 1), count - 1)
    ordered = logits.sort(dim=0).values
    return -(ordered[off - 1] + ordered[off]) / 2


def _probability_shift(scaled: Tensor, rate: float) -> Tensor:
    """What to add to scaled logits [M, E] so that the mean probability of each column is `rate`: by bisection."""
    low, high = -scaled.amax(dim=0) - 40, -scaled.amin(dim=0) + 40
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        is_over = torch.sigmoid(scaled + middle).mean(dim=0) > rate
        low, high = torch.where(is_over, low, middle), torch.where(is_over, middle, high)
    return (low + high) / 2
