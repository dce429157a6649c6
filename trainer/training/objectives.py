"""GAN objectives: what discriminator and generator minimize.

Logits are [B]. Discriminator losses are means over the batch, generator losses are per image [B].
With augmentation they are of transformed images; a transform is a linear map that is drawn once.
"wgan-gp": Gulrajani et al. 2017; "wgan": Arjovsky et al. 2017; "gan": the non-saturating form of
Goodfellow et al. 2014; "relativistic": pairs of a real and a fake image, with R1 and R2 (Huang et al. 2024).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common import entry_points
from ..common.errors import ConfigError
from ..common.text import first_line
from ..networks.discriminators import AnyDiscriminator, Discriminators
from .augmentation import ImageTransform

_TRIED_ROWS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """One objective, as its two losses and what it asks of the discriminator."""

    name: str = "objective"
    """What runs call one that is given from Python."""

    discriminator_loss: Callable[[Tensor, Tensor], Tensor]
    """Of (real logits, fake logits)."""
    generator_loss: Callable[[Tensor], Tensor]
    """Per image [B], of the fake logits, or of their differences to the real ones where pairs are compared."""
    penalizes_gradient: bool = False
    compares_pairs: bool = False
    """Whether row i of the fake images is judged against row i of the real ones, with R1 and R2."""
    clips_weights: bool = False
    loss_at_most: float = math.inf
    """A discriminator's loss, penalty included, beyond which training has diverged though all is finite."""


def gradient_square(real_gradient: Tensor, fake_gradient: Tensor) -> Tensor:
    """R1 and R2 for gamma 1: E (|grad D(real)|^2 + |grad D(fake)|^2) / 2 of gradients [B, C * H * W]."""
    return (real_gradient.square().sum(dim=1) + fake_gradient.square().sum(dim=1)).mean() / 2


def gradient_penalty(
    discriminator: AnyDiscriminator, real: Tensor, fake: Tensor, mix: Tensor, labels: Tensor | None = None
) -> Tensor:
    """E (|grad D(x)| - 1)^2 at x = mix real + (1 - mix) fake, unweighted.

    `real` and `fake` are [B, C, H, W], `mix` is [B, 1, 1, 1] in [0, 1); `labels` [B] are the classes of both.
    """
    gradient = discriminator.input_gradient(torch.lerp(fake, real, mix), labels)  # [B, C * H * W]
    norm = (gradient.square().sum(dim=1) + 1e-8).sqrt()
    return (norm - 1).square().mean()


def clip_weights(discriminators: nn.Module, bound: float) -> None:
    """Clip the parameters of discriminators to [-bound, bound], in place.

    All but those of batch normalization: its gain, bounded to 0.01, would divide the critic by 100. An
    AffineNorm's are clipped, as in the published code.
    """
    with torch.no_grad():
        for module in discriminators.modules():
            if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                for parameter in module.parameters(recurse=False):
                    parameter.clamp_(-bound, bound)


class ImageLosses:
    """f of image i: the objective's loss of D(image i), or of D(image i) - D(real i) where images come in pairs.

    With several discriminators it is the sum over them.
    """

    def __init__(
        self,
        discriminators: Discriminators,
        objective: Objective,
        real: Tensor | None,
        *,
        labels: Tensor | None = None,
        transform: ImageTransform | None = None,
    ) -> None:
        """Images, but not `real`, pass through `transform` before they are judged.

        `real` [B, C, H, W] are the images to pair with, if the objective compares pairs; `labels` [B] are classes.
        """
        self.discriminators = [DiscriminatorLosses(each, objective, real, labels) for each in discriminators]
        self.transform = transform

    def __call__(self, images: Tensor) -> Tensor:
        """Losses [B] of images [B, C, H, W], differentiable by them."""
        if self.transform is not None:
            images = self.transform(images)
        return torch.stack([each.losses(images) for each in self.discriminators]).sum(dim=0)


class DiscriminatorLosses:
    """The losses that one discriminator gives, and its logits of the real images."""

    def __init__(
        self, discriminator: AnyDiscriminator, objective: Objective, real: Tensor | None, labels: Tensor | None
    ) -> None:
        self.discriminator = discriminator
        self.labels = labels
        self._generator_loss = objective.generator_loss
        self._real_logits = None
        if objective.compares_pairs:
            if real is None:
                raise ValueError("an objective of pairs needs real images")
            with torch.no_grad():
                self._real_logits = discriminator(real, labels)  # [B]

    def losses(self, images: Tensor) -> Tensor:
        """Losses [B] of images [B, C, H, W], differentiable by them."""
        return self.of_logits(self.discriminator(images, self.labels))

    def of_logits(self, logits: Tensor) -> Tensor:
        """Losses of logits [..., B], whose last dimension are the rows."""
        return self._generator_loss(logits if self._real_logits is None else logits - self._real_logits)


_WASSERSTEIN = Objective(  # the negated estimate of the Wasserstein distance
    discriminator_loss=lambda real, fake: fake.mean() - real.mean(), generator_loss=lambda fake: -fake
)
_NON_SATURATING = Objective(
    discriminator_loss=lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
    generator_loss=lambda fake: F.softplus(-fake),
)
OBJECTIVES = {
    "wgan-gp": replace(_WASSERSTEIN, penalizes_gradient=True),
    "wgan": replace(_WASSERSTEIN, clips_weights=True),
    "gan": _NON_SATURATING,
    "relativistic": replace(
        _NON_SATURATING,
        discriminator_loss=lambda real, fake: F.softplus(fake - real).mean(),
        compares_pairs=True,
        loss_at_most=100,  # nats; one that knows nothing has 0.69
    ),
}


def configured_objective(name: str, given: Objective | None = None) -> Objective:
    """The objective of a name in settings.

    Raises ConfigError where it is one of Python's that is not `given`, or an entry point that is broken.
    """
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    if not entry_points.is_given(name):
        given = entry_points.load(entry_points.OBJECTIVES, name)
        if not isinstance(given, Objective):
            what = entry_points.shown(entry_points.OBJECTIVES, name)
            raise ConfigError(f"{what} is of type {type(given).__name__}, not an Objective")
    if given is None:
        raise ConfigError(
            f"the objective {name} was given from Python: give it again, as in Run.open(path, objective=...) of "
            f"bgan.trainer, or add it as an entry point of {entry_points.OBJECTIVES}"
        )
    _try_objective(given, name)
    return given


def _try_objective(objective: Objective, name: str) -> None:
    """Raise ConfigError unless its losses are a mean, and one of each row: others train, but for another loss."""
    logits = torch.linspace(-1, 1, _TRIED_ROWS)
    tried: tuple[tuple[str, Callable[..., Any], int, list[int]], ...] = (
        ("discriminator_loss", objective.discriminator_loss, 2, []),
        ("generator_loss", objective.generator_loss, 1, [_TRIED_ROWS]),
    )
    for which, loss, arguments, shape in tried:
        try:
            found = loss(*[logits] * arguments)
        except Exception as error:  # of code that is not ours
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ConfigError(
                f"{which} of the objective {name} fails for logits [{_TRIED_ROWS}] ({reason})"
            ) from error
        if not isinstance(found, Tensor) or list(found.shape) != shape:
            kind = list(found.shape) if isinstance(found, Tensor) else f"type {type(found).__name__}"
            raise ConfigError(
                f"{which} of the objective {name} gives {kind} for logits [{_TRIED_ROWS}]; it must give a "
                f"tensor {shape}"
            )
