"""Options that follow from settings: what is completed, shown, understood and replayed."""

import json
import re

import numpy as np
import pytest

from bgan.trainer.config.setting import option
from bgan.trainer.config.training import SETTINGS
from tests.kit.cli import bgan, error_line

SMALL = ("--dataset", "digits", "--batch-size", "512", "--epochs", "1", "--device", "cpu")


def _completed(words):
    environment = {
        "_BGAN_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    return bgan(env=environment).stdout.split()


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("bgan train --neuron ", ["dbn", "sbn", "real"]),
        ("bgan train --dataset emnist-l", ["emnist-letters"]),
        ("bgan train --preset p", ["paper", "published"]),
        ("bgan train --em", ["--ema-decay"]),
        ("bgan data --fit ", ["pad", "crop", "area", "max-pool"]),
        ("bgan expl", ["explore"]),
    ],
)
def test_the_shell_completes_commands_options_and_choices(words, completions):
    assert _completed(words) == completions


def test_the_help_has_every_setting_and_no_old_spelling():
    shown = " ".join(re.sub("[│╭╮╰╯─]", " ", bgan("train", "--help", env={"COLUMNS": "500"}).stdout).split())
    for field in SETTINGS.values():
        if field.setting.is_option:
            assert f"--{option(field.name)} " in shown
            assert " ".join(field.setting.help.split()) in shown
        if field.setting.old_name:
            assert option(field.setting.old_name) not in shown


def test_an_old_spelling_is_understood_and_says_the_new_one():
    result = bgan("train", "--average-decay", "0.5", "--no-critic-bursts", "--print-config")
    assert "\nema_decay = 0.5\n" in result.stdout
    assert result.stderr.count("warning: ") == 2
    assert "--average-decay is now --ema-decay; the old spelling goes with the next release" in result.stderr


def test_a_value_that_is_no_choice_is_one_line():
    line = error_line(bgan("train", "--neuron", "xbn", "--dataset", "digits"), 2)
    assert line == "bgan: neuron is 'xbn'; choose one of dbn, sbn, real"


def test_the_config_of_a_run_repeats_it_and_options_override_it(tmp_path):
    def trained(name, *options):
        result = bgan("train", *options, "--runs-dir", tmp_path, "--name", name)
        assert result.returncode == 0, result.stderr
        (sidecar,) = (tmp_path / name / "checkpoints").glob("*.json")
        return json.loads(sidecar.read_text())["sha256"]

    first = trained(
        "first", *SMALL, "--preset", "paper", "--discriminator-steps", "1", "--neuron", "sbn", "--seed", "3"
    )
    config = ("--config", tmp_path / "first" / "config.json")
    assert trained("again", *config) == first
    written, replayed = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("first", "again"))
    assert replayed == written
    other = json.loads(bgan("train", *config, "--seed", "4", "--dry-run").stdout)
    assert {name for name in written if other[name] != written[name]} == {"seed"}


def test_what_is_printed_as_toml_is_the_same_config(tmp_path):
    options = ("--preset", "published", "--network", "cnn", "--slope-cap", "3", *SMALL)
    (tmp_path / "own.toml").write_text(bgan("train", *options, "--print-config").stdout)
    directly = bgan("train", *options, "--dry-run").stdout
    assert json.loads(bgan("train", "--config", tmp_path / "own.toml", "--dry-run").stdout) == json.loads(directly)


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "none.npz", "--json"),
        ("data", "none.npz", "--json"),
        ("data", "none.npz", "--picture"),
        ("card", "none.onnx", "--picture"),
        ("diagnose-gradients", "none", "--json"),
        ("diagnose-gradients", "none", "--picture"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, command):
    (tmp_path / "file").touch()
    for path, reason in (("file/x.json", "Not a directory"), ("", "Is a directory")):
        assert error_line(bgan(*command, tmp_path / path)) == f"bgan: {tmp_path / path}: {reason}"


@pytest.mark.parametrize(("option", "what"), [("--json", "JSON"), ("--picture", "PNG")])
def test_a_file_that_holds_something_else_is_not_replaced(tmp_path, option, what):
    images = tmp_path / "images.npz"
    np.savez(images, images=np.random.default_rng(0).random((50, 4, 4)) < 0.5)
    before = images.read_bytes()
    result = bgan("data", images, option, images, env={"COLUMNS": "1000"})
    assert (result.returncode, images.read_bytes()) == (1, before)
    assert f"{images} is there and holds something else than {what}; name another file" in result.stderr
    for _ in range(2):
        assert bgan("data", images, option, tmp_path / "own").returncode == 0


def test_images_to_measure_on_are_looked_for_before_the_training(tmp_path):
    line = error_line(bgan("train", "--data", tmp_path, "--test-data", tmp_path / "no.npz"))
    assert f"test-data: there is no file or folder {tmp_path / 'no.npz'}" in line


def test_classes_are_conditioned_on_where_there_are_enough_images_of_each(tmp_path):
    bits = np.random.default_rng(0).random((240, 4, 4)) < 0.5
    for name, labels in (("two", np.arange(240) % 2), ("many", np.arange(240) % 24)):
        np.savez(tmp_path / f"{name}.npz", images=bits, labels=labels)
    np.save(tmp_path / "none.npy", bits)
    for name, options, expected in (
        ("two.npz", (), True),
        ("two.npz", ("--no-conditional",), False),
        ("two.npz", ("--preset", "paper"), False),
        ("many.npz", (), False),
        ("none.npy", (), False),
    ):
        result = bgan("train", "--data", tmp_path / name, "--dry-run", "--batch-size", 16, *options)
        assert json.loads(result.stdout)["conditional"] is expected, (name, options, result.stderr)


def test_several_values_are_repeated_options_or_in_the_old_spelling():
    several = (
        "--discriminator",
        "mlp",
        "--discriminator",
        "strided-cnn",
        "--augment",
        "hflip",
        "--augment",
        "vflip",
    )
    old = ("--discriminator", "mlp+strided-cnn", "--augment", "hflip+vflip")
    printed = [bgan("train", "--dataset", "digits", *given, "--dry-run").stdout for given in (several, old)]
    assert printed[0] == printed[1]
    assert json.loads(printed[0])["discriminator"] == "mlp+strided-cnn"


def test_a_bare_json_prints_and_one_with_a_file_writes(tmp_path):
    images = tmp_path / "images.npy"
    np.save(images, np.random.default_rng(0).random((50, 4, 4)) < 0.5)
    printed = bgan("data", images, "--json")
    assert set(json.loads(printed.stdout)) == {
        *("name", "count", "image_shape", "on_fraction", "classes", "duplicates", "always_on", "always_off"),
        *("digest", "warnings"),
    }
    assert json.loads(bgan("data", "--json", "--size", "2x2", "--fit", "area", images).stdout)["image_shape"] == [
        1,
        2,
        2,
    ]
    result = bgan("data", images, "--json", tmp_path / "own.json")
    assert "copies of other images" in result.stdout
    assert json.loads((tmp_path / "own.json").read_text()) == json.loads(printed.stdout)
