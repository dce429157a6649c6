"""The models that come with bgan: in the package, served where no others are, and described by their cards."""

import hashlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from bgan.clients import SamplingClient
from bgan.serving.config.settings import SHIPPED
from bgan.serving.models.engine import load_engine
from bgan.trainer.evaluation.generator import TrainedGenerator
from bgan.trainer.evaluation.metrics import artifacts
from bgan.trainer.evaluation.metrics.table import format_value
from bgan.v1 import model_pb2
from tests.conftest import ROOT
from tests.fixtures.write import write_model
from tests.kit.cli import bgan, bgan_process
from tests.kit.servers import server

NAMES = ("cnn-dbn", "cnn-sbn", "mlp-dbn", "mlp-sbn")
BYTES_AT_MOST = 1_100_000


@pytest.fixture(scope="module")
def engines():
    return {name: load_engine(SHIPPED / f"{name}.onnx") for name in NAMES}


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def target(request, tmp_path_factory):
    """A server that was started without --models in an empty folder."""
    if request.param > 1 and sys.platform != "linux":
        pytest.skip("workers need Linux")
    with server(None, "--workers", request.param, cwd=tmp_path_factory.mktemp("empty")) as process:
        assert f"loading the models that come with bgan, {SHIPPED}" in process.output()
        yield process.target


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


def _card(name):
    return (SHIPPED / f"{name}.md").read_text()


def _row(name, title):
    """The model's column and the floor's in a row of the figures, without their errors."""
    (row,) = re.findall(rf"^\| {re.escape(title)} \| (.*) \|$", _card(name), re.M)
    return [value.partition(" ± ")[0] for value in row.split(" | ")[:2]]


def test_nothing_else_is_shipped():
    files = sorted(path.name for path in SHIPPED.iterdir())
    assert files == sorted(f"{name}{suffix}" for name in NAMES for suffix in (".md", ".onnx"))


def test_they_are_small_and_what_their_names_say(name, engines):
    assert (SHIPPED / f"{name}.onnx").stat().st_size < BYTES_AT_MOST
    engine = engines[name]
    manifest = engine.manifest
    network, neuron = name.split("-")
    assert manifest.name == name
    assert manifest.dataset == "mnist"
    assert engine.image_shape == (1, 28, 28)
    assert (network == "mlp") == (manifest.network == "mlp")
    assert (neuron == "sbn") == (engine.noise.uniform_count == 784)
    assert manifest.arithmetic == model_pb2.ARITHMETIC_INTEGER
    assert list(manifest.classes) == list("0123456789")
    assert sum(manifest.class_counts) == 60_000


def test_a_server_without_models_of_its_own_serves_them(target, engines):
    with SamplingClient(target) as client:
        infos = client.list_models()
        assert [info.name for info in infos] == list(NAMES)
        assert [info.name for info in infos if info.is_default] == ["cnn-dbn"]
        for info in infos:
            assert info.revision == engines[info.name].revision
            (batch,) = client.sample_binary_images(image_count=64, seed=1, model=info.name)
            assert np.packbits(batch.images.reshape(64, -1), axis=1).tobytes() == (
                engines[info.name].sample(1, 0, 64).packed_images
            )
            assert 0.1 < batch.images.mean() < 0.3, "digits of MNIST have 19 % of their pixels on"


def test_samples_of_the_default_one_as_a_picture(target, tmp_path):
    result = bgan("sample", "--server", target, "--seed", 1, "--output", "x.png", cwd=tmp_path)
    assert "64 images of cnn-dbn, seed 1" in result.stderr
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (8 * 30 + 2, 8 * 30 + 2)


def test_a_digit_is_asked_for_by_name(target, tmp_path):
    result = bgan("sample", "--server", target, "--label", 3, "--seed", 1, "--output", "x.npz", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    with np.load(tmp_path / "x.npz") as file:
        assert set(file["labels"].tolist()) == {3}


def test_files_without_a_server(name, engines, tmp_path):
    result = bgan("generate", name, "--count", 40, "--seed", 2, "--output", "x.bits", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "x.bits").read_bytes() == engines[name].sample(2, 0, 40).packed_images


def test_models_of_ones_own_take_their_place(tmp_path):
    write_model(tmp_path / "models", "mine")
    with server(None, cwd=tmp_path) as process, SamplingClient(process.target) as client:
        assert "loading the models in models" in process.output()
        assert [info.name for info in client.list_models()] == ["mine"]
    result = bgan("generate", "mlp-dbn", "--output", "x.npz", cwd=tmp_path)
    assert "there is no model 'mlp-dbn' in models: there are mine" in result.stderr


@pytest.mark.parametrize("command", [("serve", "--port", 0), ("generate", "mlp-dbn", "--output", "x.npz")])
@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_folder_that_is_named_is_not_replaced(command, by, tmp_path):
    options, environment = (("--models", "gone"), {}) if by == "option" else ((), {"BGAN_MODELS": "gone"})
    result = bgan_process(*command, *options, cwd=tmp_path, env=environment)
    assert result.returncode == 1
    assert "gone" in result.stderr.splitlines()[-1]


def test_a_card_names_the_file_beside_it(name):
    content = (SHIPPED / f"{name}.onnx").read_bytes()
    assert _card(name).startswith(f"# {name}\n")
    assert f"| SHA-256 | `{hashlib.sha256(content).hexdigest()}` |" in _card(name)
    assert f"`{name}.onnx`, {len(content):,} bytes" in _card(name)


def test_a_card_says_all_that_it_should(name, engines):
    run, card = engines[name].manifest.training_run, _card(name)
    assert f"{run.step:,} iterations, to the end of epoch {run.epoch}, took" in card
    assert "- Weights: MIT" in card
    assert "CC BY-SA 3.0" in card
    assert "`bgan evaluate" in card
    assert "10,000 samples" in card
    assert "| metric | this model | real test images (floor) | published code | better |" in card
    assert float(_row(name, "Frechet distance")[1]) < float(_row(name, "Frechet distance")[0])


def test_the_figures_of_a_card_are_those_of_its_file(name):
    images = TrainedGenerator.from_model(SHIPPED / f"{name}.onnx").sample(10_000).images
    for title, key, measured in (
        ("on pixels, share", "on_fraction", images.mean()),
        ("isolated pixels an image", "isolated_pixels", artifacts.isolated_pixels(images).mean()),
        ("components an image", "components", artifacts.components(images).mean()),
    ):
        assert _row(name, title)[0] == format_value(key, measured), title


def test_the_command_of_a_card_is_that_of_make(name):
    made = subprocess.run(["make", "--dry-run", name], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (recipe,) = re.findall(r"bgan (train .*)", made)
    (command,) = re.findall(r"^    bgan (train .*)$", _card(name), re.M)
    resolved = [bgan(*each.split(), "--print-config").stdout for each in (recipe, command)]
    assert "epochs = " in resolved[0]
    assert resolved[0] == resolved[1]
