"""A real-valued run, and one that trains a refiner with binary neurons behind it."""

import shutil

import numpy as np
import pytest
import torch

from bgan.trainer import BinaryDataset, configure, evaluate, explore, export, find_run, refined_settings, train
from bgan.trainer.common.errors import ConfigError, ExportError, RunError
from bgan.trainer.config.training import TrainingConfig
from tests.kit.cli import bgan, error_line
from tests.kit.training import SETTINGS, newest_digest, noise_images, train_on_noise


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return train_on_noise(tmp_path_factory.mktemp("runs") / "base", neuron="real", ema_decay=0.9)


@pytest.fixture
def runs(base, tmp_path):
    """A folder with that run in it."""
    shutil.copytree(base.folder, tmp_path / "base")
    return tmp_path


def test_the_run_that_is_refined_is_needed_until_the_first_checkpoint(base, runs):
    settings = {"refine": "base", "ema_decay": 0.9, "optimizer_form": "tensorflow"}
    whole = train_on_noise(runs / "whole", **settings)
    for averaged in (True, False):
        kept = whole.trained_generator(averaged=averaged).base.state_dict()
        assert all(torch.equal(kept[name], value) for name, value in base.trained_generator().state_dict().items())
    assert not np.array_equal(whole.sample(9).images, base.sample(9, binarization="threshold").images)

    broken = train_on_noise(runs / "broken", **settings | {"epochs": 1})
    shutil.rmtree(runs / "base")
    train_on_noise(runs / "broken", **settings)
    assert newest_digest(broken) == newest_digest(whole)


@pytest.mark.parametrize(
    ("settings", "error", "line"),
    [
        ({"refine": "none"}, RunError, "there is no run 'none' in .*; the runs there: .*base"),
        (
            {"refine": "begun"},
            RunError,
            "begun has no checkpoint yet; train it first with the command that",
        ),
        (
            {"refine": "binary"},
            ConfigError,
            "the run binary has dbn neurons, and a refiner stands behind real",
        ),
        (
            {"latent_size": 9},
            ConfigError,
            "latent-size is 9, and that of the run base, which is refined, is 8; cho",
        ),
        (
            {"network": "cnn"},
            ConfigError,
            "network is cnn, and that of the run base, which is refined, is mlp; cho",
        ),
    ],
)
def test_what_cannot_be_refined_is_said_before_there_is_a_folder(runs, settings, error, line):
    if settings.get("refine") == "binary":
        train_on_noise(runs / "binary", epochs=1)
    if settings.get("refine") == "begun":
        shutil.rmtree(shutil.copytree(runs / "base", runs / "begun") / "checkpoints")
    with pytest.raises(error, match=line):
        train_on_noise(runs / "refined", **{"refine": "base", **settings})
    assert not (runs / "refined").exists()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"neuron": "real"}, "a refiner has binary neurons, not real ones; choose --neuron dbn"),
        ({"gates": 2}, "refine and gates do not go together; choose one of --refine, --gates"),
        ({"hidden_neuron": "dbn"}, "refine and hidden-neuron do not go together; choose one of"),
        ({"clusters": 2}, "refine takes runs without clusters"),
        ({"network": "own:Mine"}, "refine takes a run with a network of bgan's, not own:Mine; choose one of mlp"),
    ],
)
def test_settings_that_do_not_go_with_a_refiner(settings, line):
    with pytest.raises(ConfigError, match=line):
        TrainingConfig.resolve(refine="base", **settings)


@pytest.mark.usefixtures("training")
def test_the_command_has_network_and_sizes_from_the_run_that_is_refined(runs):
    np.save(runs / "images.npy", noise_images().images.numpy())
    few = ("--batch-size", 16, "--latent-size", 8, "--network", "mlp", "--width", 0.1)
    images = ("train", "--data", runs / "images.npy", "--runs-dir", runs, "--tracker", "none", "--epochs", 1)
    refine = (*images, "--batch-size", 16, "--refine", "real")
    assert bgan(*images, *few, "--neuron", "real", "--name", "real").returncode == 0
    result = bgan(*refine)
    assert result.returncode == 0, result.stderr
    (name,) = (path.name for path in runs.glob("*-refine-real-*"))
    own = find_run(name, runs).config().settings()
    assert refined_settings("real", runs) == {each: own[each] for each in refined_settings("real", runs)}
    assert (own["network"], own["latent_size"], own["width"], own["conditional"]) == ("mlp", 8, 0.1, False)

    line = error_line(bgan(*refine, "--latent-size", 9, "--name", "other"), code=2)
    assert "latent-size is 9, and that of the run real, which is refined, is 8" in line
    np.save(runs / "images.npy", noise_images().images.numpy()[:, :, :6])
    line = error_line(bgan(*refine, "--name", "other"), code=2)
    assert "the run real makes images 1x8x12, and those to train on are 1x6x12; choose others" in line
    assert "there is no run 'none'" in error_line(bgan(*refine, "--refine", "none"))

    np.save(runs / "images.npy", noise_images().images.numpy())
    shutil.rmtree(runs / "real")
    result = bgan(*refine, "--epochs", 1)
    assert result.returncode == 0, result.stderr
    assert "is trained to epoch 1" in result.stderr


def test_classes_are_those_of_the_run_that_is_refined(tmp_path):
    config = TrainingConfig.resolve(neuron="real", **SETTINGS | {"conditional": True, "epochs": 1})
    images = noise_images().images.numpy()
    first, second = (BinaryDataset.from_arrays(images, [*names] * 24, name="two") for names in ("ab", "ac"))
    train(config, first, folder=tmp_path / "base")
    with pytest.raises(
        ConfigError, match="the run base has other classes than the images to train on; choose oth"
    ):
        train(
            config.replace(refine="base", neuron="dbn", training_neuron=None), second, folder=tmp_path / "refined"
        )


@pytest.mark.usefixtures("exporting")
def test_it_is_exported_measured_and_explored_without_the_run_that_it_refines(tmp_path):
    settings = {"network": "doubling-cnn", "slope_rate": 1.5, "ema_decay": 0.9}
    train_on_noise(tmp_path / "base", neuron="real", **settings)
    run = train_on_noise(tmp_path / "refined", refine="base", neuron="sbn", **settings)
    shutil.rmtree(tmp_path / "base")
    result = export(run, tmp_path / "models")  # which compares it with torch in double precision
    assert result.differing_bits < 1e-3 * result.bits
    with pytest.raises(ExportError, match="refined has a refiner, which sees the output of real-valued neurons"):
        export(run, tmp_path / "models", arithmetic="integer")
    figures = [
        evaluate(each, noise_images(), count=64, device="cpu", labelled=False, metrics=["on_fraction"])
        for each in (run, result.path)
    ]
    assert figures[0].metrics["on_fraction"] == pytest.approx(figures[1].metrics["on_fraction"], abs=0.05)
    assert explore(run, tmp_path / "pictures", nearest=False, device="cpu").page.is_file()


def test_from_python_the_settings_are_named(runs):
    config = configure(refine="base", **refined_settings("base", runs))
    assert (config.networks.network, config.networks.latent_size) == ("mlp", 8)
