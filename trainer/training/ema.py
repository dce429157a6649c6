"""An averaged generator: an exponential moving average of the weights of the one that is trained.

Yazici et al. 2019 find it better for every objective. It is the one to sample.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def ema_copy(network: Network) -> Network:
    """A copy of the network in eval mode, for the average to begin from."""
    average = copy.deepcopy(network).eval()
    average.requires_grad_(False)
    return average


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, *, decay: float, step: int) -> None:
    """Move each weight and batch-norm statistic a to d a + (1 - d) w, after iteration `step` (from 0).

    d is `decay`, but at most (1 + step) / (5 + step): a short run is averaged over its last fifth or so.
    Counters are copied.
    """
    weight = 1 - min(decay, (1 + step) / (5 + step))
    floats: list[tuple[Tensor, Tensor]] = []
    for mean, value in zip(_tensors(average), _tensors(network), strict=True):
        if mean.is_floating_point():
            floats.append((mean, value))
        else:
            mean.copy_(value)
    torch._foreach_lerp_([mean for mean, _ in floats], [value for _, value in floats], weight)


def _tensors(network: nn.Module) -> chain[Tensor]:
    return chain(network.parameters(), network.buffers())
