"""What a run is called that was given no name."""

from __future__ import annotations

import dataclasses
import re

from .presets import preset_values
from .training import TrainingConfig


def default_name(config: TrainingConfig) -> str:
    """The name of a run that was given none: the settings that people tell runs apart by."""
    preset = f"{config.preset}-" if config.preset else ""
    norm = "" if config.discriminator_norm == "none" else f"-{config.discriminator_norm}"
    usual = dataclasses.asdict(TrainingConfig(network=config.network))
    usual |= preset_values(config.preset, neuron=config.neuron, network=config.network)
    networks, estimator = config.network, ""
    if config.discriminator != usual["discriminator"]:
        networks = f"{config.network}-{config.discriminator}".replace("+", "-")
    if config.estimator != usual["estimator"]:
        estimator = f"-{config.estimator}"
    kind = f"{config.dataset}-{networks}-{config.neuron}-{config.objective}"
    more = "-conditional" if config.conditional else ""
    if config.augment != usual["augment"]:
        more += "-" + re.sub("[:+]", "-", config.augment)
    return f"{preset}{kind}{norm}{estimator}{more}-seed{config.seed}"
