"""`bgan card`: what a card says is what the file, its run and `bgan evaluate` say."""

import hashlib
import json
import re
import shlex

import numpy as np
import pytest
from rich.console import Console

from bgan.trainer.common.errors import RunError, SamplesError
from bgan.trainer.config.presets import preset_values
from bgan.trainer.config.training import TrainingConfig
from bgan.trainer.evaluation.metrics.table import Figures, indistinct
from bgan.trainer.exporting.exporter import export_run
from bgan.trainer.exporting.model_file import OnnxModel
from bgan.trainer.reports.card import open_trained_model
from bgan.trainer.training.loop import train
from bgan.trainer.training.run import Run
from tests.fixtures.write import write_model
from tests.kit.cli import bgan
from tests.kit.models import make_run

COUNT = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cache_environment, training):
    """A run of one epoch and its exported model, its card and picture."""
    folder = tmp_path_factory.mktemp("card")
    np.savez(folder / "published.npz", images=np.random.default_rng(0).random((100, 28, 28)) < 0.2)
    settings = {"neuron": "sbn", "network": "mlp", "estimator": "reinmax", "dataset": "digits", "epochs": 1}
    config = TrainingConfig.resolve(**preset_values("modern", neuron="sbn", network="mlp") | settings)
    train(config, folder / "runs" / "mine", Console(stderr=True), print)
    export_run(Run(folder / "runs" / "mine"), folder / "models")
    export_run(
        Run(folder / "runs" / "mine"),
        folder / "models",
        name="exact",
        binarization="threshold",
        arithmetic="integer",
    )
    options = ("--picture", "pictures.png", "--license", "MIT", "--published-samples", "published.npz")
    _runs(("card", "models/mine.onnx", "models/exact.onnx", *options, "--count", COUNT), folder, cache_environment)
    return folder


@pytest.fixture(scope="module")
def card(folder):
    return (folder / "models" / "mine.md").read_text()


def _runs(command, folder, cache):
    result = bgan(*command, cwd=folder, env=cache)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_card_names_its_file(card, folder):
    content = (folder / "models" / "mine.onnx").read_bytes()
    assert f"`mine.onnx`, {len(content):,} bytes" in card
    assert hashlib.sha256(content).hexdigest() in card
    assert "Weights: MIT." in card
    assert "`uniforms`" in card
    assert "{" not in card


def test_a_card_says_where_the_bits_are_the_same(card, folder):
    assert "| the same bits | on CPUs of one class, with one version of onnxruntime: floats decide them |" in card
    exact = (folder / "models" / "exact.md").read_text()
    digest = OnnxModel(folder / "models" / "exact.onnx").manifest.images_sha256
    (promise,) = re.findall(r"^\| the same bits \| (.*) \|$", exact, re.M)
    assert promise.startswith("on every machine, with every version of onnxruntime: integers decide them.")
    assert promise.endswith(f"the first 1,024 images of seed 0, packed: `{digest}`")
    assert "| a pixel is on | where its logit, an integer, is above 0 |" in exact
    (command,) = re.findall(r"^    (bgan export .*)$", exact, re.M)
    assert command == "bgan export mine --name exact --binarization threshold --arithmetic integer"


def test_the_command_of_a_card_has_the_settings_of_the_run(card, folder):
    (command,) = re.findall(r"^    (bgan train .*)$", card, re.M)
    assert command == (
        "bgan train --preset modern --neuron sbn --network mlp --dataset digits --estimator reinmax --epochs 1 "
        "--no-conditional --name mine"
    )
    resolved = json.loads(_runs((*shlex.split(command)[1:], "--dry-run"), folder, {}))
    assert "\n    bgan export mine\n" in card
    assert resolved.pop("run") == "runs/mine"
    assert resolved == json.loads((folder / "runs" / "mine" / "config.json").read_text())


def test_a_card_says_what_the_training_took(card, folder):
    report = json.loads((folder / "runs" / "mine" / "report.json").read_text())
    assert (
        f"{report['steps']} iterations, to the end of epoch 1, took {report['seconds'] / 60:.1f} minutes" in card
    )
    assert f"torch {report['versions']['torch']}" in card


def test_the_figures_of_a_card_are_those_of_evaluate(card, folder, cache_environment):
    (command,) = re.findall(r"`(bgan evaluate .*)`", card)
    _runs((*shlex.split(command)[1:], "--json", "../figures.json"), folder / "models", cache_environment)
    (measured,) = json.loads((folder / "figures.json").read_text())
    rows = dict(re.findall(r"^\| (.*?) \| (.*) \|$", card, re.M))
    own = Figures(measured["metrics"], measured["errors"])
    real = Figures(measured["floor"], measured["floor_errors"])
    for title, key in (("Frechet distance", "frechet_distance"), ("components an image", "components")):
        model, floor, published, _ = rows[title].split(" | ")
        assert (model, floor) == (own.text(key), real.text(key))
        assert " ± " in model
        assert published not in {model, floor, "-"}
    titles = "; ".join(indistinct(own, real))
    assert f"\nNo difference between this model and real images: {titles} (within two errors).\n" in card
    assert " ".join(f"{100 * share:.1f}" for share in measured["class_histogram"]) in card


def test_the_picture_is_drawn_and_linked(card, folder):
    assert "(../pictures.png)" in card
    assert (folder / "pictures.png").read_bytes().startswith(b"\x89PNG")


def test_the_card_of_a_model_in_a_store_goes_beside_it(card, folder, cache_environment):
    files = pytest.importorskip("fsspec", reason="the extra s3 is not installed").filesystem("memory")
    files.pipe_file("/models/mine.onnx", (folder / "models" / "mine.onnx").read_bytes())
    options = ("--picture", folder / "of-the-store.png", "--license", "MIT", "--count", COUNT)
    said = _runs(("card", "mine", "--models", "memory://models", *options), folder, cache_environment)
    assert said == "memory://models/mine.md\n"
    written = files.cat_file("/models/mine.md").decode()
    assert written.splitlines()[0] == card.splitlines()[0]
    assert "![Samples of the models](of-the-store.png)" in written
    assert files.cat_file("/models/of-the-store.png") == (folder / "of-the-store.png").read_bytes()
    result = bgan("card", "memory://models/gone.onnx", cwd=folder)
    assert result.stderr.splitlines()[-1] == "bgan: there is no file memory://models/gone.onnx"
    result = bgan("card", "memory://models/mine.onnx", "--runs-dir", "no-runs", cwd=folder)
    assert result.stderr.splitlines()[-1].startswith("bgan: ")
    files.store.clear()


def test_models_without_their_run(folder, tmp_path):
    runs = tmp_path / "runs"
    write_model(tmp_path, "unfinished")
    write_model(tmp_path, "mine")
    make_run(runs / "unfinished")
    (tmp_path / "text.onnx").write_text("no model")
    for name, runs_dir, error, says in (
        ("text", runs, SamplesError, r"text\.onnx is not a model that `bgan export` wrote"),
        ("unfinished", runs, RunError, "unfinished is not finished; resume it"),
        ("mine", runs, RunError, "there is no run 'mine'"),
        ("mine", folder / "runs", RunError, "was exported at step 3 .* export it again: bgan export mine"),
    ):
        with pytest.raises(error, match=says):
            open_trained_model(tmp_path / f"{name}.onnx", runs_dir)


def test_a_card_that_cannot_be_written(folder, tmp_path):
    write_model(tmp_path, "mine")
    result = bgan("card", tmp_path / "mine.onnx", tmp_path / "gone.onnx", cwd=folder)
    assert result.returncode == 1
    assert f"bgan: there is no file {tmp_path / 'gone.onnx'}" in result.stderr.splitlines()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.onnx"]
