"""Networks of one's own: any module as a generator or a discriminator.

A generator takes latents [B, Z], and labels [B] where there are classes, to logits [B, C, H, W]; a discriminator
takes images [B, C, H, W], and labels [B], to logits [B] or [B, 1].
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..common.entry_points import GIVEN
from ..common.errors import ConfigError
from ..common.image_shape import ImageShape
from ..common.text import first_line

NetworkSource = nn.Module | Callable[..., nn.Module]
"""A module, of which a copy is taken, or a function that builds one."""


class OwnGenerator(nn.Module):
    """A module as a generator."""

    def __init__(
        self, module: nn.Module, name: str, image_shape: ImageShape, latent_size: int, class_count: int
    ) -> None:
        super().__init__()
        self.module, self.name, self.image_shape = module, name, image_shape
        self.latent_size, self.class_count = latent_size, class_count

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, Z] latents, and [B] labels where it has classes, to [B, C, H, W] logits."""
        _check_labels(self.class_count, labels)
        logits: Tensor = self.module(latents) if labels is None else self.module(latents, labels)
        return logits


class OwnDiscriminator(nn.Module):
    """A module as a discriminator.

    Where it has a method `input_gradient` (images and labels to [B, C, H, W] or [B, C * H * W]), that is taken
    for the gradients of its logits by its images; else they come from a second backward pass.
    """

    def __init__(self, module: nn.Module, name: str, class_count: int) -> None:
        super().__init__()
        self.module, self.name, self.class_count = module, name, class_count
        self.mixes_rows = True
        """Whether the logit of an image depends on the others of its batch; True until it was tried."""

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, C, H, W] images, and [B] labels where it has classes, to [B] logits."""
        _check_labels(self.class_count, labels)
        logits: Tensor = self.module(images) if labels is None else self.module(images, labels)
        return logits.squeeze(1) if logits.ndim == 2 else logits

    def input_gradient(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Gradients of the logits by their own images, [B, C * H * W], differentiable by the parameters."""
        return self.logits_and_input_gradient(images, labels)[1]

    def logits_and_input_gradient(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [B] and what `input_gradient` gives, both differentiable."""
        closed: Any = getattr(self.module, "input_gradient", None)
        if closed is not None:
            gradient: Tensor = closed(images) if labels is None else closed(images, labels)
            return self(images, labels), gradient.flatten(1)
        images = images.detach().requires_grad_()
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have no second derivative
            logits = self(images, labels)
            (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return logits, gradient.flatten(1)


def _check_labels(class_count: int, labels: Tensor | None) -> None:
    if labels is None and class_count:
        raise ValueError("a class-conditional network needs labels")
    if labels is not None and not class_count:
        raise ValueError("a network without classes takes no labels")


def given_name(source: NetworkSource) -> str:
    """What settings call a network that is given from Python: own:CLASS."""
    named = type(source) if isinstance(source, nn.Module) else getattr(source, "func", source)
    name = getattr(named, "__name__", type(named).__name__)
    return GIVEN + (re.sub(r"[^A-Za-z0-9_.-]+", "", name)[:64] or "network")


def built(source: Any, what: str, **sizes: Any) -> nn.Module:
    """A copy of a module, or what a source makes of the sizes. Raises ConfigError where that is no module."""
    try:
        module = copy.deepcopy(source) if isinstance(source, nn.Module) else source(**sizes)
    except ConfigError:
        raise
    except Exception as error:  # of code that is not ours
        raise ConfigError(
            f"{what} cannot be {'copied' if isinstance(source, nn.Module) else 'built'} "
            f"({type(error).__name__}: {first_line(error)}); give a module, or what makes one when called with "
            f"{', '.join(sizes)}"
        ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{what} gives type {type(module).__name__}, not a torch.nn.Module")
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        raise ConfigError(f"{what} has weights on the device meta, which have no values; build it on another")
    return module.cpu().train()
