"""How many discriminator steps an iteration has."""

from __future__ import annotations

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


def _is_burst(iteration: int) -> bool:
    return iteration < _BURST_FIRST or iteration % _BURST_EVERY == 0
