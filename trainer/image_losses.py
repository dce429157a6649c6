"""The generator's loss f of each image, and of each image with one of its pixels flipped.

Shapes: B images, C channels, H rows, W columns, N = C * H * W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .flips import flip_differences
from .networks import Discriminator, Discriminators
from .objectives import Objective


class ImageLosses:
    """f of image i: the objective's loss of D(image i), or of D(image i) - D(real i) where images come in pairs.

    With several discriminators it is the sum over them.
    """

    def __init__(self, discriminators: Discriminators, objective: Objective, real: Tensor | None) -> None:
        """`real` are the images [B, C, H, W] that rows are paired with, where the objective compares pairs."""
        self._judges = [_Judge(each, objective, real) for each in discriminators]

    def __call__(self, images: Tensor) -> Tensor:
        """Losses [B] of images [B, C, H, W], differentiable by them."""
        return torch.stack([judge.losses(images) for judge in self._judges]).sum(dim=0)

    def flip_differences(self, images: Tensor) -> Tensor:
        """f(b_i = 1) - f(b_i = 0) of every pixel i of images of 0 and 1, the others as they are: [B, N].

        The discriminators must judge every image by itself.
        """
        return torch.stack([judge.flip_differences(images) for judge in self._judges]).sum(dim=0)


class _Judge:
    """One discriminator, and its logits of the real images."""

    def __init__(self, discriminator: Discriminator, objective: Objective, real: Tensor | None) -> None:
        self._discriminator = discriminator
        self._generator_loss = objective.generator_loss
        self._real_logits = None
        if objective.compares_pairs:
            assert real is not None
            with torch.no_grad():
                self._real_logits = discriminator(real)  # [B]

    def losses(self, images: Tensor) -> Tensor:
        return self._of_logits(self._discriminator(images))

    def flip_differences(self, images: Tensor) -> Tensor:
        return flip_differences(self._discriminator, self._of_logits, images)

    def _of_logits(self, logits: Tensor) -> Tensor:
        """Losses of logits [..., B], whose last dimension are the rows."""
        return self._generator_loss(logits if self._real_logits is None else logits - self._real_logits)
