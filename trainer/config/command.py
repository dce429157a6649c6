"""Settings as the `bgan train` that has them."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from .checks import option
from .presets import preset_values
from .training import DEFAULT_NETWORK, TrainingConfig

_NOT_COMPUTED = frozenset({"device", "data_dir"})
_OF_IMAGES = frozenset({"data", "data_digest", "image_options"})


def training_command(config: TrainingConfig, name: str) -> str:
    """The shortest `bgan train` that has these settings, but for where it runs."""
    preset = config.preset or "paper"  # whose settings are those of none
    values = preset_values(preset, neuron=config.neuron, network=config.network)
    base = {**values, "preset": config.preset, "neuron": config.neuron, "network": config.network}
    given: dict[str, Any] = {}
    left_out = _NOT_COMPUTED | _OF_IMAGES | (set() if config.data is None else {"dataset"})
    for field in dataclasses.fields(config):  # in this order what follows from a setting comes after it
        wanted = getattr(config, field.name)
        if field.name not in left_out and getattr(TrainingConfig(**base | given), field.name) != wanted:
            given[field.name] = wanted
    own = preset_values(preset, neuron=config.neuron).get("network", DEFAULT_NETWORK)
    first = {
        "preset": preset,
        "neuron": None if config.neuron == "dbn" else config.neuron,
        "network": None if config.network == own else config.network,
    }
    images = {**data_options(config), **config.image_options.changed()}
    return shlex.join(["bgan", "train", *train_options(first | given | images), "--name", name])


def data_options(config: TrainingConfig) -> dict[str, Any]:
    """The option that names the images of a file or folder, without where that lies."""
    return {} if config.data is None else {"data": Path(config.data).name}


def train_options(settings: dict[str, Any]) -> list[str]:
    """Settings of a training as options of `bgan train`; None is left out."""
    options = []
    for name, value in settings.items():
        if isinstance(value, bool):
            options.append(f"--{'' if value else 'no-'}{option(name)}")
        elif value is not None:
            options += [f"--{option(name)}", str(value)]
    return options
