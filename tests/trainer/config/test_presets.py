import itertools
import json
import re

import pytest

from bgan.trainer.common.errors import ConfigError
from bgan.trainer.config.command import default_name
from bgan.trainer.config.presets import PRESETS, preset_values
from bgan.trainer.config.training import NETWORKS, NEURONS, SETTINGS, TrainingConfig
from tests.kit.cli import bgan, bgan_process


def test_presets_are_valid_settings_and_say_why():
    for name, preset in PRESETS.items():
        for neuron, network in itertools.product(NEURONS, NETWORKS):
            values = preset_values(name, neuron=neuron, network=network)
            assert TrainingConfig.resolve(**values | {"neuron": neuron, "network": network}).preset == name
        assert preset.summary
        for _, setting, chosen in preset.rows():
            assert setting in SETTINGS
            assert chosen.reason


def test_the_paper_is_the_default_of_the_settings():
    config = TrainingConfig.resolve(**preset_values("paper"))
    assert config.replace(preset=None) == TrainingConfig.resolve()


def test_published_settings():
    settings = TrainingConfig.resolve(**preset_values("published"), objective="gan").settings()
    expected = {
        **{"slope_rate": 1.0, "generator_norm": "affine", "discriminator_norm": "none", "training_split": "all"},
        **{"discriminator_steps": 5, "discriminator_bursts": True, "fresh_batches": False},
        **{"initialization": "truncated-normal", "optimizer": "adam", "optimizer_form": "tensorflow"},
    }
    assert {name: settings[name] for name in expected} == expected
    wgan = TrainingConfig.resolve(**preset_values("published"), objective="wgan")
    assert wgan.optimization.optimizer == "rmsprop"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ("dbn", "sbn", "reinmax")),
        (("--neuron", "real"), ("real", "real", "sigmoid-adjusted")),
        (("--neuron", "sbn"), ("sbn", "sbn", "reinmax")),
        (("--network", "mlp"), ("dbn", "dbn", "sigmoid-adjusted")),
        (("--neuron", "sbn", "--estimator", "identity"), ("sbn", "sbn", "identity")),
        (("--training-neuron", "dbn", "--estimator", "identity"), ("dbn", "dbn", "identity")),
    ],
)
def test_the_modern_preset_trains_binary_neurons_as_stochastic_ones(options, expected):
    printed = bgan("train", "--dataset", "digits", "--dry-run", "--preset", "modern", *options).stdout
    settings = json.loads(printed)
    assert (settings["neuron"], settings["training_neuron"], settings["estimator"]) == expected


@pytest.mark.parametrize(
    ("options", "preset"),
    [
        ((), "modern"),
        (("--objective", "relativistic"), "modern"),
        (("--objective", "wgan-gp"), "paper"),
        (("--objective", "gan", "--neuron", "sbn"), "paper"),
        (("--objective", "gan", "--preset", "published"), "published"),
    ],
)
def test_the_preset_of_commands_that_name_none(options, preset):
    settings = json.loads(bgan("train", "--dataset", "digits", "--dry-run", *options).stdout)
    assert settings["preset"] == preset


def test_the_help_says_what_the_default_preset_has():
    printed = " ".join(bgan("train", "--help", env={"COLUMNS": "400"}).stdout.split())
    for setting, value in (("network", "doubling-cnn"), ("learning-rate", "0.002"), ("slope-rate", "1.0")):
        (default,) = re.findall(rf"--{setting} <[\w|-]+> .*?\[default: \((.*?); paper", printed)[:1]
        assert default == value


def test_an_mlp_has_the_settings_of_an_mlp_also_where_it_is_stochastic():
    for neuron in ("dbn", "sbn"):
        config = TrainingConfig.resolve(
            **preset_values("modern", neuron=neuron, network="mlp") | {"neuron": neuron}
        )
        assert (config.networks.discriminator, config.neurons.training_neuron, config.neurons.estimator) == (
            "mlp",
            neuron,
            "sigmoid-adjusted",
        )


def test_runs_of_presets_have_names_of_their_own():
    config = TrainingConfig.resolve(**preset_values("published"), dataset="digits", discriminator_norm="affine")
    assert default_name(config) == "published-digits-mlp-dbn-wgan-gp-affine-seed0"


def test_an_unknown_preset():
    with pytest.raises(ConfigError, match="choose one of paper, published, modern"):
        preset_values("sota")
    result = bgan("train", "--preset", "sota", "--dataset", "digits")
    assert result.returncode == 2
    assert result.stderr.startswith("bgan: preset is 'sota'")


def test_options_override_the_preset_even_where_they_name_the_default():
    arguments = ("train", "--dataset", "digits", "--dry-run", "--preset", "published")
    settings = json.loads(bgan(*arguments, "--slope-rate", "1.1", "--seed", "3").stdout)
    assert (settings["slope_rate"], settings["seed"], settings["generator_norm"]) == (1.1, 3, "affine")
    assert json.loads(bgan(*arguments).stdout)["slope_rate"] == 1.0


def test_the_list_names_every_setting_of_every_preset():
    printed = bgan_process("presets").stdout
    for name, preset in PRESETS.items():
        assert f"{name}: {preset.summary}" in printed
        for _, setting, _ in preset.rows():
            assert f"--{setting.replace('_', '-')}" in printed


def test_presets_as_json():
    content = json.loads(bgan("presets", "--json").stdout)
    assert list(content) == list(PRESETS)
    for name, preset in content.items():
        assert preset["summary"] == PRESETS[name].summary
        rows = [(row["generators"] or "", row["setting"], row["value"]) for row in preset["settings"]]
        assert rows == [
            (generators, setting, chosen.value) for generators, setting, chosen in PRESETS[name].rows()
        ]
        assert all(row.keys() == {"setting", "value", "generators", "reason"} for row in preset["settings"])
