import json

import pytest

from bgan.trainer.common.errors import ConfigError, RunError
from bgan.trainer.config.file import as_toml, read_settings
from bgan.trainer.config.images import ImageOptions
from bgan.trainer.config.training import SETTINGS, TrainingConfig

OTHER = {
    "neuron": "sbn",
    "estimator": "st-gumbel",
    "estimator_temperature": 0.3,
    "slope_cap": 4,
    "discriminator": "mlp+strided-cnn",
    "fresh_batches": False,
    "learning_rate": 3e-5,
    "dataset": "kmnist",
    "seed": 2**63 - 1,
}


def _resolved(settings):
    own = {name: value for name, value in settings.items() if name in SETTINGS}
    options = {name: value for name, value in settings.items() if name not in SETTINGS and name != "preset"}
    return TrainingConfig.resolve(**own, preset=settings.get("preset"), image_options=ImageOptions(**options))


@pytest.fixture
def config():
    return TrainingConfig.resolve(
        preset="paper", **OTHER, image_options=ImageOptions(binarize="threshold", threshold=3.5, invert=True)
    )


def test_what_is_printed_as_toml_is_read_as_the_same_settings(config, tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text(as_toml(config))
    assert _resolved(read_settings(path)) == config


def test_the_config_of_a_run_is_read_as_its_settings(config, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    assert _resolved(read_settings(path)) == config


def test_older_names_are_read(tmp_path):
    path = tmp_path / "old.toml"
    path.write_text("average_decay = 0.5\n[objective]\ncritic_steps = 3\n")
    assert read_settings(path) == {"ema_decay": 0.5, "discriminator_steps": 3}


def test_every_setting_is_printed_with_its_help(config):
    printed = " ".join(as_toml(config).replace("#", "").split())
    for field in SETTINGS.values():
        assert f"{field.name} =" in printed
        assert " ".join(field.setting.help.split()) in printed


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        ("colour = 1", ConfigError, "colour is no setting; `bgan train --print-config` lists them"),
        ("epochs = = 2", RunError, "cannot be read"),
        (None, RunError, "cannot be read \\(No such file"),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path, content, error, says):
    path = tmp_path / "settings.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match=says) as caught:
        read_settings(path)
    assert str(path) in str(caught.value)
