"""The generator's loss f of each image.

With augmentation f includes the image's transform, a linear map that is drawn once.

Shapes: B images, C channels, H rows, W columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..networks.discriminators import Discriminator, Discriminators
from .augmentation import ImageTransform
from .objectives import Objective


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
        self, discriminator: Discriminator, objective: Objective, real: Tensor | None, labels: Tensor | None
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
