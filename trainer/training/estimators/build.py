"""The gradient estimators, made by name."""

from __future__ import annotations

import math
from collections.abc import Callable

from ...common.image_shape import ImageShape
from ...config.training import TrainingConfig
from ...networks.neurons import IDENTITY, REINMAX, SIGMOID_ADJUSTED
from .base import Estimator
from .control_variates import MuProp, Rebar, Relax
from .score_function import (
    BoundarySeeking,
    Disarm,
    LeaveOneOutReinforce,
    MaliGan,
    PerUnitReinforce,
    Reinforce,
)
from .straight_through import BinaryConcrete, ThroughNeurons


def build_estimator(config: TrainingConfig, image_shape: ImageShape) -> Estimator:
    """The estimator that the settings name, untrained; RELAX draws its weights from torch's global generator."""
    neuron = config.neurons.training_neuron or config.neurons.neuron
    samples, temperature = (
        config.neurons.estimator_samples or 0,
        config.neurons.estimator_temperature or 0.0,
    )  # 0: it has none
    builders: dict[str, Callable[[], Estimator]] = {
        **dict.fromkeys(
            (SIGMOID_ADJUSTED, IDENTITY, REINMAX), lambda: ThroughNeurons(neuron, config.neurons.estimator)
        ),
        "st-gumbel": lambda: BinaryConcrete(temperature, is_hard=True),
        "concrete": lambda: BinaryConcrete(temperature, is_hard=False),
        "reinforce": Reinforce,
        "reinforce-per-unit": lambda: PerUnitReinforce(image_shape),
        "reinforce-loo": lambda: LeaveOneOutReinforce(samples),
        "muprop": MuProp,
        "disarm": Disarm,
        "rebar": lambda: Rebar(temperature),
        "relax": lambda: Relax(temperature, math.prod(image_shape)),
        "bgan": lambda: BoundarySeeking(samples),
        "maligan": MaliGan,
    }
    return builders[config.neurons.estimator]()
