"""The gradient estimators, made by name."""

from __future__ import annotations

import math
from collections.abc import Callable

from ...common.image_shape import ImageShape
from ...config.training import TrainingConfig
from .base import Estimator
from .control_variates import MuProp, Rebar, Relax
from .importance_weights import BoundarySeeking, MaliGan
from .score_function import Disarm, LeaveOneOutReinforce, PerUnitReinforce, Reinforce
from .straight_through import BinaryConcrete, ThroughNeurons

_BUILDERS: dict[str, Callable[[TrainingConfig, ImageShape], Estimator]] = {
    "sigmoid-adjusted": lambda config, shape: _through_neurons(config),
    "identity": lambda config, shape: _through_neurons(config),
    "reinmax": lambda config, shape: _through_neurons(config),
    "st-gumbel": lambda config, shape: BinaryConcrete(_temperature(config), is_hard=True),
    "concrete": lambda config, shape: BinaryConcrete(_temperature(config), is_hard=False),
    "reinforce": lambda config, shape: Reinforce(),
    "reinforce-per-unit": lambda config, shape: PerUnitReinforce(shape),
    "reinforce-loo": lambda config, shape: LeaveOneOutReinforce(_samples(config)),
    "muprop": lambda config, shape: MuProp(),
    "disarm": lambda config, shape: Disarm(),
    "rebar": lambda config, shape: Rebar(_temperature(config)),
    "relax": lambda config, shape: Relax(_temperature(config), math.prod(shape)),
    "bgan": lambda config, shape: BoundarySeeking(_samples(config)),
    "maligan": lambda config, shape: MaliGan(),
}


def build_estimator(config: TrainingConfig, image_shape: ImageShape) -> Estimator:
    """The estimator that the settings name, untrained; RELAX draws its weights from torch's global generator."""
    return _BUILDERS[config.neurons.estimator](config, image_shape)


def _through_neurons(config: TrainingConfig) -> ThroughNeurons:
    assert config.neurons.training_neuron is not None
    return ThroughNeurons(config.neurons.training_neuron, config.neurons.estimator)


def _samples(config: TrainingConfig) -> int:
    assert config.neurons.estimator_samples is not None
    return config.neurons.estimator_samples


def _temperature(config: TrainingConfig) -> float:
    assert config.neurons.estimator_temperature is not None
    return config.neurons.estimator_temperature
