"""The generator's loss f of each image, and of each image with one of its pixels flipped.

Images may be judged through an augmentation, which is then a part of f: a linear map, drawn once for each image.

Shapes: B images, C channels, H rows, W columns, N = C * H * W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .augmentation import Maps
from .flips import flip_differences
from .networks import Discriminator, Discriminators
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
        maps: Maps | None = None,
    ) -> None:
        """`real` are the images [B, C, H, W] that rows are paired with, where the objective compares pairs.

        `labels` [B] are the classes of the rows, where there are any. `maps` are what happens to images, not to
        `real`, before they are judged.
        """
        self._judges = [_Judge(each, objective, real, labels) for each in discriminators]
        self._maps = maps

    def __call__(self, images: Tensor) -> Tensor:
        """Losses [B] of images [B, C, H, W], differentiable by them."""
        if self._maps is not None:
            images = self._maps(images)
        return torch.stack([judge.losses(images) for judge in self._judges]).sum(dim=0)

    def flip_differences(self, images: Tensor) -> Tensor:
        """f(b_i = 1) - f(b_i = 0) of every pixel i of images of 0 and 1, the others as they are: [B, N].

        The discriminators must judge every image by itself, and images as they are.
        """
        assert self._maps is None
        return torch.stack([judge.flip_differences(images) for judge in self._judges]).sum(dim=0)


class _Judge:
    """One discriminator, and its logits of the real images."""

    def __init__(
        self, discriminator: Discriminator, objective: Objective, real: Tensor | None, labels: Tensor | None
    ) -> None:
        self._discriminator = discriminator
        self._labels = labels
        self._generator_loss = objective.generator_loss
        self._real_logits = None
        if objective.compares_pairs:
            assert real is not None
            with torch.no_grad():
                self._real_logits = discriminator(real, labels)  # [B]

    def losses(self, images: Tensor) -> Tensor:
        return self._of_logits(self._discriminator(images, self._labels))

    def flip_differences(self, images: Tensor) -> Tensor:
        return flip_differences(self._discriminator, self._of_logits, images, self._labels)

    def _of_logits(self, logits: Tensor) -> Tensor:
        """Losses of logits [..., B], whose last dimension are the rows."""
        return self._generator_loss(logits if self._real_logits is None else logits - self._real_logits)
