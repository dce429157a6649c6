"""The exponential moving average (EMA) of a generator's weights, which is the one to sample.

Yazici et al. 2019 find it better for every objective.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def build_ema(network: nn.Module, *, decay: float) -> AveragedModel:
    """The average of a network, which begins as its copy; `update_parameters(network)` follows each iteration.

    Iteration `step` (from 0) moves each weight and batch-norm statistic a to d a + (1 - d) w; counters are copied.
    d is `decay`, but at most (1 + step) / (5 + step): a short run is averaged over its last fifth or so.
    """

    @torch.no_grad()
    def update(averages: Tensors, values: Tensors, count: Tensor | int) -> None:
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, values, 1 - min(decay, int(count) / (4 + int(count))))
        else:
            torch._foreach_copy_(averages, values)

    ema = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    rewind(ema, 0)
    return ema.requires_grad_(False).eval()


def rewind(ema: AveragedModel, step: int) -> None:
    """Go to where `step` iterations were averaged: the copy at the start counts as one more."""
    ema.n_averaged.fill_(step + 1)
