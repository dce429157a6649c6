"""Score-function estimators with control variates made from the loss between 0 and 1. They are unbiased.

Symbols and shapes are those of `base`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import (
    LogitEstimator,
    LossFunction,
    by_image,
    draw_bits,
    draw_logistic,
    losses_without_grad,
    relaxed_losses,
)

_LEARNING_RATE = 1e-3
_HIDDEN = 128


class MuProp(LogitEstimator):
    """(f(b) - f(p) - (b - p) f'(p)) (b - p) + f'(p) p (1 - p) (Gu et al. 2016)."""

    def _gradients(self, logits: Tensor, losses: LossFunction, random: torch.Generator) -> tuple[Tensor, Tensor]:
        probabilities = torch.sigmoid(logits).requires_grad_()
        at_mean = losses(probabilities)
        (slopes,) = torch.autograd.grad(at_mean.sum(), probabilities)
        probabilities = probabilities.detach()
        bits = draw_bits(probabilities, random)
        values = losses_without_grad(losses, bits)
        deviations = bits - probabilities
        residuals = values - at_mean.detach() - (deviations * slopes).flatten(1).sum(dim=1)
        return by_image(residuals) * deviations + slopes * probabilities * (1 - probabilities), values


class Rebar(LogitEstimator):
    """(f(b) - c(z')) (b - p) + d/dm c(z) - d/dm c(z'), c(z) = eta f(sigma(z / t)) (Tucker et al. 2017).

    z = m + L with logistic L gives b = 1[z > 0]; z' is drawn again among those that give the same b.
    eta (from 1) and t are trained to lower the squared norm of the estimate: its expectation is the
    variance and a constant (Grathwohl et al. 2018).
    """

    optimizer: torch.optim.Optimizer

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.optimizer = torch.optim.Adam(self.parameters(), lr=_LEARNING_RATE)

    def _gradients(self, logits: Tensor, losses: LossFunction, random: torch.Generator) -> tuple[Tensor, Tensor]:
        logits = logits.detach().requires_grad_()
        relaxed = logits + draw_logistic(logits, random)
        bits = (relaxed > 0).to(logits.dtype).detach()
        values = losses_without_grad(losses, bits)
        conditional = conditional_logits(logits, bits, draw_logistic(logits, random))
        at_relaxed, at_conditional = self._control(relaxed, losses), self._control(conditional, losses)
        (correction,) = torch.autograd.grad((at_relaxed - at_conditional).sum(), logits, create_graph=True)
        deviations = bits - torch.sigmoid(logits.detach())
        gradients = by_image(values - at_conditional) * deviations + correction
        self._set_slopes(gradients)
        return gradients.detach(), values

    def _control(self, relaxed: Tensor, losses: LossFunction) -> Tensor:
        """c(z), [B], of relaxed logits z."""
        return self.scale * relaxed_losses(losses)(torch.sigmoid(relaxed / self.log_temperature.exp()))

    def _set_slopes(self, gradients: Tensor) -> None:
        """Leave in the parameters the gradients of the squared norm."""
        parameters = list(self.parameters())
        slopes = torch.autograd.grad(gradients.square().sum() / len(gradients), parameters)
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter.grad = slope


class Relax(Rebar):
    """REBAR with c(z) = eta f(sigma(z / t)) + r(z), r a network of one hidden layer (Grathwohl et al. 2018).

    r is 0 at first, so that RELAX begins as REBAR.
    """

    def __init__(self, temperature: float, pixels: int) -> None:
        super().__init__(temperature)
        self.network = nn.Sequential(nn.Linear(pixels, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, 1))
        for parameter in self.network[-1].parameters():
            nn.init.zeros_(parameter)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=_LEARNING_RATE)

    def _control(self, relaxed: Tensor, losses: LossFunction) -> Tensor:
        learned: Tensor = self.network(relaxed.flatten(1)).squeeze(1)
        return super()._control(relaxed, losses) + learned


def conditional_logits(logits: Tensor, bits: Tensor, noise: Tensor) -> Tensor:
    """Draw z' = m + logit(u') with u' uniform among those that give 1[z' > 0] = b (Tucker et al. 2017).

    `noise` is logit(v), v uniform. u' = v p + 1 - p for b = 1 and v (1 - p) for b = 0 simplify to these
    forms, which are exact for saturated neurons too.
    """
    on = F.softplus(noise + F.softplus(logits))
    off = -F.softplus(-noise + F.softplus(-logits))
    return torch.where(bits > 0, on, off)
