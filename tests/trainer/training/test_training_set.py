"""Runs on clusters of images: what is kept, what is resumed, what is drawn."""

import numpy as np
import pytest
from rich.console import Console

from bgan.trainer.common.errors import RunError
from bgan.trainer.config.training import TrainingConfig
from bgan.trainer.evaluation.generator import TrainedGenerator
from bgan.trainer.reports.diagnosis.diagnose import DiagnosisOptions, diagnose
from bgan.trainer.training.checkpoint import checkpoint_files, load_checkpoint
from bgan.trainer.training.loop import train
from bgan.trainer.training.run import Run
from bgan.trainer.training.training_set import open_training_set

NAMES = ("cluster 0", "cluster 1", "cluster 2", "cluster 3")


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("BGAN_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A file of 350 images of noise, of which 300 are trained on; their labels have a class of one image."""
    path = tmp_path_factory.mktemp("images") / "noise.npz"
    bits = np.random.default_rng(3).random((350, 8, 12)) < 0.4
    np.savez(path, images=bits, labels=np.where(np.arange(350) == 0, 2, np.arange(350) % 2))
    return path


def _config(images, **settings):
    usual = {"objective": "relativistic", "batch_size": 50, "latent_size": 8, "epochs": 2, "clusters": 4}
    return TrainingConfig.resolve(**usual | {"data": str(images), "dataset": "noise", "neuron": "sbn"} | settings)


def _train(folder, config):
    said = []
    train(config, folder, Console(quiet=True), said.append)
    return said


def _tensors(folder):
    return load_checkpoint(checkpoint_files(folder / "checkpoints")[0]).tensors


@pytest.fixture(scope="module")
def unbroken(images, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BGAN_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
        folder = tmp_path_factory.mktemp("runs") / "unbroken"
        assert _train(folder, _config(images)) == []
    return folder


@pytest.mark.parametrize("state", ["kept", "deleted", "damaged"])
def test_a_resumed_run_has_the_same_clusters_and_bits(images, unbroken, tmp_path, state):
    folder = tmp_path / "resumed"
    _train(folder, _config(images, epochs=1))
    file = folder / "clusters.npy"
    if state == "deleted":
        file.unlink()
    if state == "damaged":
        file.write_bytes(b"\x93NUMPY")
    said = _train(folder, _config(images))
    assert [line.split(" cannot be read")[0] for line in said] == ([str(file)] if state == "damaged" else [])
    assert file.read_bytes() == (unbroken / file.name).read_bytes()
    found, expected = _tensors(folder), _tensors(unbroken)
    assert all((found[name] == expected[name]).all() for name in expected)


def test_a_run_keeps_its_own_clusters_where_another_machine_computes_others(images, unbroken):
    run, labels = Run(unbroken), np.load(unbroken / "clusters.npy")
    try:
        np.save(run.clusters_file, labels[::-1])
        np.testing.assert_array_equal(open_training_set(run.config(), run).labels, labels[::-1])
        np.save(run.clusters_file, np.zeros_like(labels))
        with pytest.raises(RunError, match=r"other numbers of images .* its images or clusters.npy, or"):
            _train(unbroken, _config(images, epochs=3))
    finally:
        np.save(run.clusters_file, labels)


def test_clusters_are_drawn_by_their_numbers_of_images(unbroken):
    counts = np.bincount(np.load(unbroken / "clusters.npy"))
    generator = TrainedGenerator.from_run(Run(unbroken))
    assert (generator.classes, generator.class_counts) == (NAMES, tuple(counts))
    samples = generator.sample(3000)
    assert samples.classes == NAMES
    assert np.bincount(samples.labels) / 3000 == pytest.approx(counts / 300, abs=0.04)


def test_estimators_are_diagnosed_at_images_of_clusters(unbroken):
    diagnosis = diagnose(
        Run(unbroken), DiagnosisOptions(images=2, draws=4, backgrounds=4), estimators=["identity"]
    )
    assert diagnosis.gradient_norm > 0


def test_a_class_of_one_image_is_warned_of(images, tmp_path):
    (line,) = _train(tmp_path / "lone", _config(images, clusters=None, conditional=True, epochs=1))
    assert line.startswith("1 of 3 classes have fewer than 2 training images each (2); their images can only be")
