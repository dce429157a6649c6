"""What changes from iteration to iteration: the number of discriminator steps, and the learning rate."""

from __future__ import annotations

import math

_BURST_STEPS = 100
_BURST_FIRST = 25
_BURST_EVERY = 500


def critic_steps_in(iteration: int, *, steps: int, bursts: bool) -> int:
    """Discriminator steps of `iteration` (from 0).

    With `bursts`, as the published code (and the reference code of WGAN, which it follows): 100 in
    the first 25 iterations and in every one whose number 500 divides; else `steps`.
    """
    return _BURST_STEPS if bursts and _is_burst(iteration) else steps


def critic_steps_before(iteration: int, *, steps: int, bursts: bool) -> int:
    """Discriminator steps of all iterations before `iteration`."""
    count = 0
    if bursts:
        count = min(iteration, _BURST_FIRST)
        count += max(0, (iteration - 1) // _BURST_EVERY)  # the multiples of 500 in [25, iteration)
    return iteration * steps + count * (_BURST_STEPS - steps)


def learning_rate_factor(step: int, *, total: int, decay: str) -> float:
    """What the learning rate is multiplied by in iteration `step` (from 0) of `total`.

    "linear" and "cosine" (Loshchilov and Hutter 2017) fall from 1 to 0, which iteration `total` would have.
    """
    if decay == "linear":
        return 1 - step / total
    if decay == "cosine":
        return (1 + math.cos(math.pi * step / total)) / 2
    return 1.0


def _is_burst(iteration: int) -> bool:
    return iteration < _BURST_FIRST or iteration % _BURST_EVERY == 0
