"""The command that a card says trained its model."""

import ast
import shlex

import pytest

from bgan.trainer.config.command import training_command
from bgan.trainer.config.presets import PRESETS, preset_values
from bgan.trainer.config.training import TrainingConfig


def _settings(command):
    """The settings that `bgan train` would have: options go before those of the preset."""
    program, verb, *words = shlex.split(command)
    assert (program, verb) == ("bgan", "train")
    given = {}
    for word in words:
        if word.startswith("--no-"):
            given[word.removeprefix("--no-").replace("-", "_")] = False
        elif word.startswith("--"):
            name = word.removeprefix("--").replace("-", "_")
            given[name] = True
        else:
            given[name] = _value(word)
    assert given.pop("name") == "mine"
    return _config(given.pop("preset", None), given)


def _config(preset, given):
    values = preset_values(preset, neuron=given.get("neuron", "dbn"), network=given.get("network"))
    return TrainingConfig.resolve(**values | given)


def _value(word):
    try:
        return ast.literal_eval(word)
    except (SyntaxError, ValueError):
        return word


@pytest.mark.parametrize("preset", [None, *PRESETS])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"network": "cnn", "discriminator": "mlp", "neuron": "sbn", "estimator": "reinmax", "epochs": 3},
        {"network": "doubling-cnn", "objective": "wgan", "optimizer": "adam", "penalty_weight": 10.0},
        {
            "objective": "gan",
            "discriminator_steps": 1,
            "discriminator_bursts": True,
            "fresh_batches": False,
            "seed": 7,
        },
        {"conditional": True, "dataset": "digits"},
        {"clusters": 9, "dataset": "digits"},
        {"learning_rate": 3e-5, "discriminator_learning_rate": 1e-4, "slope_cap": 4.5, "dataset": "digits"},
    ],
)
def test_the_command_gives_the_settings(preset, settings):
    config = _config(preset, settings)
    assert _settings(training_command(config, "mine")) == config.replace(preset=preset or "paper")


def test_the_command_is_short():
    config = _config("modern", {"neuron": "sbn", "network": "mlp", "device": "cpu", "data_dir": "x"})
    expected = "bgan train --preset modern --neuron sbn --network mlp --no-conditional --name mine"
    assert training_command(config, "mine") == expected


def test_what_was_given_from_python_is_said_where_no_command_gives_it():
    config = TrainingConfig.resolve(
        network="own:Net", discriminator="own:Critic+mlp", dataset="bars", data_digest="0" * 64
    )
    command, comment = training_command(config, "mine").split("  # ")
    assert "--network own:Net " in command
    assert comment == "by bgan.trainer.train, which was given own:Net, own:Critic, the images of bars"
