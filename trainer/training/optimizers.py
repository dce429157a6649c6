"""Optimizers by name, in torch's form and in TensorFlow 1's, the schedule of their steps and rates, and the EMA.

The forms differ in where epsilon goes, which matters while gradients are small, and in RMSProp's mean square:
TF1's begins with 1 and decays by 0.9; torch's begins with 0 and decays by 0.99, so that its first update is of 10
learning rates.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

_TENSORFLOW_EPSILON = 1e-8
_BURST_STEPS = 100
_BURST_FIRST = 25
_BURST_EVERY = 500


class TFAdam(torch.optim.Adam):
    """Adam as TF1 has it: p -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps).

    It is the order that Kingma and Ba 2015 name at the end of section 2; there, epsilon is "epsilon hat".
    torch adds eps to the bias-corrected sqrt(v / (1 - b2^t)); scaling it by 1 / sqrt(1 - b2^t) gives TF1's.
    """

    _done: int | None = None  # steps, which on a GPU lie there; None: not read

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's."""
        self._done = None
        super().load_state_dict(state_dict)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of all parameters."""
        if self._done is None:
            self._done = int(self.state[self.param_groups[0]["params"][0]].get("step", 0))
        self._done += 1
        for group in self.param_groups:
            group["eps"] = _TENSORFLOW_EPSILON / math.sqrt(1 - group["betas"][1] ** self._done)
        loss: float | None = super().step(closure)
        return loss


class TFRMSprop(torch.optim.Optimizer):
    """RMSProp as TF1 has it: s = 0.9 s + 0.1 g^2 from s = 1, then p -= lr g / sqrt(s + eps)."""

    def __init__(self, parameters: Any, *, lr: float, decay: float = 0.9) -> None:
        super().__init__(parameters, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            gradients = [parameter.grad for parameter in parameters]
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["square_avg"] = torch.ones_like(parameter)
            squares = [self.state[parameter]["square_avg"] for parameter in parameters]
            torch._foreach_mul_(squares, group["decay"])
            torch._foreach_addcmul_(squares, gradients, gradients, value=1 - group["decay"])
            roots = torch._foreach_add(squares, _TENSORFLOW_EPSILON)
            torch._foreach_sqrt_(roots)
            torch._foreach_addcdiv_(parameters, gradients, roots, value=-group["lr"])


def build_optimizer(
    name: str, form: str, module: nn.Module, *, learning_rate: float, betas: tuple[float, float] = (0.5, 0.9)
) -> torch.optim.Optimizer:
    """The optimizer "adam" (with these betas) or "rmsprop" of a module, in the form "torch" or "tensorflow"."""
    is_tensorflow = form == "tensorflow"
    if name == "rmsprop":
        return (TFRMSprop if is_tensorflow else torch.optim.RMSprop)(module.parameters(), lr=learning_rate)
    adam = TFAdam if is_tensorflow else torch.optim.Adam
    return adam(module.parameters(), lr=learning_rate, betas=betas, fused=True)


def discriminator_steps_in(iteration: int, *, steps: int, bursts: bool) -> int:
    """Discriminator steps of `iteration` (from 0).

    With `bursts`, as in the published code (and WGAN's, which it follows): 100 in the first 25 iterations and in
    every 500th; else `steps`.
    """
    is_burst = bursts and (iteration < _BURST_FIRST or iteration % _BURST_EVERY == 0)
    return _BURST_STEPS if is_burst else steps


def discriminator_steps_before(iteration: int, *, steps: int, bursts: bool) -> int:
    """Discriminator steps of all iterations before `iteration`."""
    multiples = max(0, (iteration - 1) // _BURST_EVERY)  # of 500 in [25, iteration)
    count = min(iteration, _BURST_FIRST) + multiples if bursts else 0
    return iteration * steps + count * (_BURST_STEPS - steps)


def learning_rate_factor(step: int, *, total: int, decay: str) -> float:
    """The factor of the learning rate in iteration `step` (from 0) of `total`.

    "linear" and "cosine" (Loshchilov and Hutter 2017) fall from 1 to 0, which iteration `total` would have.
    """
    if decay == "linear":
        return 1 - step / total
    if decay == "cosine":
        return (1 + math.cos(math.pi * step / total)) / 2
    return 1.0


class ExponentialAverage:
    """The average of a network, which begins as its copy; `update` follows each iteration.

    Iteration `step` (from 0) moves each weight and batch-norm statistic a to d a + (1 - d) w; counters are copied.
    d is `decay`, but at most (1 + step) / (5 + step): a short run is averaged over its last fifth or so. Yazici et
    al. 2019 find that samples of the average are better for every objective.
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self.module = copy.deepcopy(network).requires_grad_(False).eval()
        self._decay = decay

    def weight_at(self, step: int) -> float:
        """1 - d of iteration `step`."""
        return 1 - min(self._decay, (step + 1) / (5 + step))

    @torch.no_grad()
    def update(self, network: nn.Module, weight: float | Tensor) -> None:
        """Move the average towards the network by `weight_at` of an iteration, a number or a tensor []."""
        pairs = list(zip(_tensors(self.module), _tensors(network), strict=True))
        averages, values = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(averages, values, weight if isinstance(weight, float) else [weight] * len(averages))
        for count, value in pairs:
            if not count.is_floating_point():
                count.copy_(value)


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(network.parameters(), network.buffers())
