"""The gradient estimators, made by name."""

import math
from collections.abc import Callable
from functools import partial

from ...common import entry_points
from ...common.errors import ConfigError
from ...common.image_shape import ImageShape
from ...common.text import first_line
from ...config.estimators import ESTIMATORS, estimator_entry
from ...config.inner import InnerConfig
from ...config.training import TrainingConfig
from ...networks.neurons import IDENTITY, REINMAX, SIGMOID_ADJUSTED
from .base import Estimator
from .control_variates import MuProp, Rebar, Relax
from .score_function import BoundarySeeking, Disarm, LeaveOneOutReinforce, MaliGan, PerUnitReinforce, Reinforce
from .straight_through import BinaryConcrete, ThroughNeurons


def build_estimator(config: TrainingConfig, image_shape: ImageShape) -> Estimator:
    """The estimator of the output neurons that the settings name, untrained.

    RELAX draws its weights from torch's global generator. Raises ConfigError where it is an entry point that is
    broken.
    """
    own = config.neurons
    numbers = (own.estimator_samples, own.estimator_temperature)  # an estimator has one of them, or neither
    return estimator_of(own.estimator, own.training_neuron, image_shape, *(n for n in numbers if n is not None))


def build_inner_estimator(config: InnerConfig, count: int) -> Estimator | None:
    """That of `count` inner neurons, as of an image [count, 1, 1]; None without them.

    Raises ConfigError as `build_estimator`.
    """
    if config.estimator is None or config.neuron is None:
        return None
    entry = estimator_entry(config.estimator)
    numbers = (entry.samples, entry.temperature)
    shape = ImageShape(count, 1, 1)
    return estimator_of(config.estimator, config.neuron, shape, *(n for n in numbers if n is not None))


def estimator_of(name: str, neuron: str, image_shape: ImageShape, *number: float) -> Estimator:
    """The estimator of that name for those neurons, and its number where it has one: samples or temperature."""
    if name not in ESTIMATORS:
        return _of_another_package(name, image_shape)
    through_neurons = partial(ThroughNeurons, neuron, name)
    builders: dict[str, Callable[..., Estimator]] = {
        **dict.fromkeys((SIGMOID_ADJUSTED, IDENTITY, REINMAX), through_neurons),
        "st-gumbel": partial(BinaryConcrete, is_hard=True),
        "concrete": partial(BinaryConcrete, is_hard=False),
        "reinforce": Reinforce,
        "reinforce-per-unit": partial(PerUnitReinforce, image_shape),
        "reinforce-loo": LeaveOneOutReinforce,
        "muprop": MuProp,
        "disarm": Disarm,
        "rebar": Rebar,
        "relax": partial(Relax, pixels=math.prod(image_shape)),
        "bgan": BoundarySeeking,
        "maligan": MaliGan,
    }
    return builders[name](*number)


def _of_another_package(name: str, image_shape: ImageShape) -> Estimator:
    build = entry_points.load(entry_points.ESTIMATORS, name)
    what = entry_points.shown(entry_points.ESTIMATORS, name)
    try:
        estimator = build(image_shape=image_shape)
    except Exception as error:  # of code that is not ours
        raise ConfigError(f"{what} fails for image_shape ({type(error).__name__}: {first_line(error)})") from error
    if not isinstance(estimator, Estimator):
        raise ConfigError(f"{what} gives type {type(estimator).__name__}, not an Estimator")
    return estimator
