"""What other packages add by entry points: names on the command line, and what is said of broken ones."""

import json
import sys

import numpy as np
import pytest

from bgan import trainer
from bgan.trainer.common import entry_points
from bgan.trainer.config.training import TrainingConfig
from tests.conftest import ROOT
from tests.kit.cli import bgan, bgan_process, error_line
from tests.kit.packages import package, write_package

CODE = (
    (ROOT / "tests" / "kit" / "own_networks.py").read_text()
    + """
import numpy as np
from bgan.trainer import Estimate, EstimatorEntry, Estimator, Metric, Objective, StopTraining

def generator(*, latent_size, image_shape, class_count):
    return AttentiveGenerator(latent_size, class_count)

def critic(*, image_shape, class_count):
    return AttentiveCritic(class_count)

hinge = Objective(
    discriminator_loss=lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
    generator_loss=lambda fake: -fake,
)

class Sigmoid(Estimator):
    entry = EstimatorEntry("backpropagates through the probabilities")

    def __init__(self, image_shape):
        super().__init__()

    def forward(self, logits, slope, losses, random):
        loss = losses(torch.sigmoid(slope * logits)).mean()
        return Estimate(loss, loss)

def share(x):
    return (x.images == x.images[..., ::-1]).mean()

symmetry = Metric("artifacts", "symmetric pixels, share", share, "floor")
fails = Metric("artifacts", "fails", lambda x: x.nothing, "floor")

def letters(path):
    text = [line.split() for line in path.read_text().splitlines()]
    images = [[[letter == "#" for letter in row] for row in rows] for _, *rows in text]
    return np.array(images), [label for label, *_ in text]

def broken(path):
    raise EOFError("it ends too soon")

number = 3
"""
)
POINTS = (
    (entry_points.NETWORKS, "attentive", "generator"),
    (entry_points.NETWORKS, "number", "number"),
    (entry_points.NETWORKS, "absent", "absent"),
    (entry_points.NETWORKS, "mlp", "number"),
    (entry_points.NETWORKS, "bad+name", "number"),
    (entry_points.DISCRIMINATORS, "attentive", "critic"),
    (entry_points.OBJECTIVES, "hinge", "hinge"),
    (entry_points.OBJECTIVES, "number", "number"),
    (entry_points.ESTIMATORS, "sigmoid", "Sigmoid"),
    (entry_points.ESTIMATORS, "number", "number"),
    (entry_points.METRICS, "symmetry", "symmetry"),
    (entry_points.READERS, "letters", "letters"),
    (entry_points.READERS, "broken", "broken"),
    (entry_points.READERS, "number", "number"),
)
SMALL = ("--epochs", 1, "--batch-size", 8, "--latent-size", 6, "--discriminator-steps", 1)


@pytest.fixture
def strangers(tmp_path):
    with package(tmp_path / "packages", CODE, *POINTS) as module:
        yield module


@pytest.fixture
def letters(tmp_path):
    lines = []
    for label, row, column in np.ndindex(2, 8, 6):
        image = np.full((8, 8), ".")
        image[row, column : column + 2] = "#"
        lines.append(" ".join(["dash" if label else "bar", *map("".join, image if label else image.T)]))
    path = tmp_path / "letters.txt"
    path.write_text("\n".join(lines))
    return path


def _train(tmp_path, letters, *options, data=("--reader", "letters")):
    environment = {"BGAN_CACHE_DIR": str(tmp_path / "cache")}
    return bgan(
        "train", "--preset", "paper", "--data", letters, *data, *SMALL, *options, cwd=tmp_path, env=environment
    )


@pytest.mark.usefixtures("training")  # for seconds
def test_names_of_all_groups_train_and_measure(strangers, letters, tmp_path):
    own = ("--network", "attentive", "--discriminator", "attentive+mlp", "--objective", "hinge")
    result = _train(tmp_path, letters, *own, "--neuron", "sbn", "--estimator", "sigmoid", "--name", "mine")
    assert result.returncode == 0, result.stderr
    assert "images 1x8x8: generator attentive, " in result.stderr
    config = trainer.find_run("mine", tmp_path / "runs").config()
    assert config.optimization.optimizer == "adam"
    environment = {"BGAN_CACHE_DIR": str(tmp_path / "cache")}
    metrics = ("--metric", "symmetry", "--metric", "on_fraction")
    result = bgan(
        "evaluate", "mine", "--count", 64, "--no-labels", *metrics, "--json", "-", cwd=tmp_path, env=environment
    )
    (found,) = json.loads(result.stdout)
    assert set(found["metrics"]) == set(found["floor"]) == {"symmetry", "on_fraction"}
    result = bgan("data", letters, "--reader", "letters", cwd=tmp_path, env=environment)
    assert "bar 48, dash 48" in result.stdout
    names = ("--estimator", "sigmoid", "--images", 2, "--draws", 20, "--backgrounds", 20)
    result = bgan("diagnose-gradients", "mine", *names, "--json", "-", cwd=tmp_path, env=environment)
    assert [each["estimator"] for each in json.loads(result.stdout)["estimators"]] == [
        "sigmoid-adjusted",
        "sigmoid",
    ]
    planned = _train(tmp_path, letters, *own, "--dry-run")
    assert "generator attentive, " in planned.stderr


def test_help_and_completion_know_the_names_without_loading_them(strangers):
    assert "mlp|cnn|doubling-cnn" in bgan("train", "--help").stdout
    assert entry_points.registered(entry_points.NETWORKS) == ("absent", "attentive", "mlp", "number")
    assert strangers not in sys.modules
    with pytest.raises(
        trainer.ConfigError, match="network is 'cmm'; choose one of mlp, cnn, doubling-cnn, absent"
    ):
        TrainingConfig.resolve(network="cmm")


WRONG = {
    "network": (
        ("--network", "absent"),
        "the entry point 'absent' of bgan.networks (strangers_N:absent of strangers_N"
        ") cannot be imported (AttributeError: module 'strangers_N' has no attribute 'absent')",
    ),
    "number": (
        ("--network", "number"),
        "the entry point 'number' of bgan.networks (strangers_N:number of strangers_N"
        ") is of type int, not what builds a network",
    ),
    "objective": (
        ("--objective", "number"),
        "the entry point 'number' of bgan.objectives (strangers_N:number of "
        "strangers_N) is of type int, not an Objective",
    ),
    "estimator": (
        ("--neuron", "sbn", "--estimator", "number"),
        "the entry point 'number' of bgan.estimators ("
        "strangers_N:number of strangers_N) fails for image_shape (TypeError: 'int' object is not callable)",
    ),
    "given": (
        ("--network", "own:Mine"),
        "own:Mine was given from Python: give it again, as in Run.open(path, "
        "generator=...) of bgan.trainer, or add it as an entry point of bgan.networks",
    ),
    "dbn": (
        ("--estimator", "sigmoid"),
        "the estimator sigmoid needs neurons that are drawn, and deterministic ones",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_that_is_broken_is_named_before_there_is_a_run(strangers, letters, tmp_path, name):
    options, message = WRONG[name]
    result = _train(tmp_path, letters, *options)
    line = error_line(result, code=result.returncode)
    assert message.replace("strangers_N", strangers) in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        ("broken", "fails (EOFError: it ends too soon)"),
        ("number", "is of type int, not a function of a path"),
        ("other", "no installed package has the entry point 'other' of bgan.readers"),
    ],
)
def test_a_reader_that_is_broken_is_named(strangers, letters, tmp_path, reader, message):
    result = _train(tmp_path, letters, data=("--reader", reader))
    assert message in error_line(result, code=result.returncode)


def test_a_metric_that_is_broken_is_named(tmp_path):
    images = (np.random.default_rng(0).random((80, 1, 5, 5)) < 0.5).astype(np.uint8)
    dataset = trainer.BinaryDataset.from_arrays(images)
    with package(tmp_path, CODE, (entry_points.METRICS, "fails", "fails")) as module:
        message = rf"the entry point 'fails' of bgan.metrics \({module}:fails of {module}\) fails \(AttributeError"
        with pytest.raises(trainer.ConfigError, match=message):
            trainer.evaluate(images, dataset, metrics=["fails"], device="cpu")


def test_a_name_that_two_packages_have_is_refused(strangers, tmp_path):
    with package(tmp_path / "others", CODE, (entry_points.OBJECTIVES, "hinge", "hinge")):
        config = TrainingConfig.resolve(objective="hinge")
        with pytest.raises(trainer.ConfigError, match="several packages have the entry point 'hinge' of bgan"):
            trainer.train(config, trainer.load_dataset("digits"), folder=tmp_path / "run")


def test_names_are_there_in_a_process(tmp_path):
    write_package(tmp_path, CODE, POINTS)
    result = bgan_process("train", "--network", "attentive", "--print-config", env={"PYTHONPATH": str(tmp_path)})
    assert result.returncode == 0, result.stderr
    assert 'network = "attentive"' in result.stdout


def test_one_that_exits_when_it_is_imported_is_named(tmp_path):
    with (
        package(tmp_path, "raise SystemExit(5)", (entry_points.NETWORKS, "exits", "network")),
        pytest.raises(
            trainer.ConfigError, match=r"'exits' of bgan.networks \(.* cannot be imported \(SystemExit: 5\)"
        ),
    ):
        entry_points.load(entry_points.NETWORKS, "exits")


def test_a_metric_that_cannot_be_is_named_before_a_run_that_would_be_evaluated(tmp_path):
    config = TrainingConfig.resolve(dataset="digits", evaluate_every=1)
    with (
        package(tmp_path, CODE, (entry_points.METRICS, "precision", "symmetry")),
        pytest.raises(
            trainer.ConfigError, match=r"'precision' of bgan.metrics .* has the name of a metric of bgan"
        ),
    ):
        trainer.train(config, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
