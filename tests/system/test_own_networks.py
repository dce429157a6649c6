"""A generator and a critic that bgan has never seen: trained, resumed, exported, served and evaluated."""

import copy

import numpy as np
import pytest
import torch
from rich.console import Console

import bgan.trainer as bgan
from bgan.clients import SamplingClient
from bgan.trainer.exporting.stream_noise import first_noise
from bgan.trainer.training.checkpoint import checkpoint_files
from tests.kit.own_networks import AttentiveCritic, AttentiveGenerator, digits_like
from tests.kit.servers import server

SETTINGS = {
    "neuron": "sbn",
    "conditional": True,
    "batch_size": 16,
    "latent_size": 6,
    "epochs": 2,
    "discriminator_steps": 1,
    "ema_decay": 0.9,
}
CONFIG = bgan.TrainingConfig.resolve(**SETTINGS)
STOCHASTIC = {"stochastic": True, "class_counts": (32, 32, 32)}


@pytest.fixture(scope="module")
def dataset():
    images, labels = digits_like()
    return bgan.BinaryDataset.from_arrays(images, labels, name="bars")


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(3)
    return {"generator": AttentiveGenerator(6, 3), "discriminators": AttentiveCritic(3)}


@pytest.fixture(scope="module")
def run(tmp_path_factory, dataset, networks):
    return bgan.train(CONFIG, dataset, **networks, folder=tmp_path_factory.mktemp("runs") / "attentive")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return bgan.export(run, tmp_path_factory.mktemp("models"))


class _StopsAfterAnEpoch(bgan.Callback):
    def __init__(self):
        self.seen = []

    def on_samples(self, step, images):
        self.seen.append((step, images.shape, set(np.unique(images))))

    def on_checkpoint(self, step, path):
        raise bgan.StopTraining


@pytest.mark.usefixtures("training")  # for seconds
def test_it_resumes_bit_for_bit(run, dataset, networks, tmp_path):
    stops = _StopsAfterAnEpoch()
    before = copy.deepcopy(networks["generator"].state_dict())
    broken = bgan.train(CONFIG, dataset, **networks, folder=tmp_path / "attentive", callbacks=[stops])
    assert [path.stem for path in checkpoint_files(broken.checkpoints)] == ["step_00000006"]
    assert stops.seen == [(step, (64, 1, 8, 8), {0, 1}) for step in (0, 6)]
    bgan.train(CONFIG, dataset, **networks, folder=tmp_path / "attentive", console=Console(quiet=True))
    newest, expected = (checkpoint_files(each.checkpoints)[0] for each in (broken, run))
    assert newest.name == expected.name == "step_00000012.safetensors"
    assert newest.read_bytes() == expected.read_bytes()  # with dropout, batch and spectral normalization
    assert all(torch.equal(before[name], value) for name, value in networks["generator"].state_dict().items())


def test_it_is_opened_again_with_what_was_given(run, networks):
    opened = bgan.Run.open(run.folder, **networks)
    first, second = opened.sample(9, seed=4), run.sample(9, seed=4)
    np.testing.assert_array_equal(first.images, second.images)
    assert opened.config().networks.network == "own:AttentiveGenerator"
    assert run.sample(5, labels=["2", 0]).labels.tolist() == [2, 0, 2, 0, 2]
    with pytest.raises(bgan.RunError, match=r"generator of Python, own:AttentiveGenerator.*Run\.open\(path, gen"):
        bgan.Run.open(run.folder)
    with pytest.raises(bgan.CheckpointError, match="another generator own:AttentiveGenerator"):
        bgan.Run.open(run.folder, **networks | {"generator": AttentiveGenerator(6, 3, channels=4)}).sample()


def test_its_file_is_served_and_measured_like_ours(run, exported, dataset):
    assert exported.differing_bits <= 0.001 * exported.bits
    with server(exported.path.parent) as process, SamplingClient(process.target) as client:
        (info,) = client.list_models()
        assert (info.name, info.network) == ("attentive", "own:AttentiveGenerator")
        batches = list(client.sample_binary_images(image_count=96, seed=0))
    images = np.concatenate([batch.images for batch in batches])
    noise = list(first_noise(96, 6, (1, 8, 8), **STOCHASTIC))
    latents, uniforms, labels = (
        torch.from_numpy(np.concatenate([part[name] for part in noise]))
        for name in ("latents", "uniforms", "labels")
    )
    with torch.no_grad():
        probabilities = torch.sigmoid(1.1 * run.trained_generator()(latents, labels))  # the slope of epoch 2
    is_near = (uniforms - probabilities).abs() < 1e-4
    assert ((uniforms < probabilities).numpy() == images)[~is_near.numpy()].all()
    measured = [bgan.evaluate(each, dataset, device="cpu", labelled=False) for each in (images, exported.path)]
    of_run = bgan.evaluate(run, dataset, device="cpu", labelled=False, count=96, metrics=["on_fraction"])
    assert [len(each.metrics) for each in measured] == [8, 16]
    assert of_run.metrics["on_fraction"] == pytest.approx(measured[1].metrics["on_fraction"], abs=0.1)


@pytest.mark.long
def test_its_gradients_are_measured_and_its_pictures_drawn(run, dataset, tmp_path):
    diagnosis = bgan.diagnose_gradients(
        run, estimators=["reinmax"], images=2, draws=20, backgrounds=20, dataset=dataset, device="cpu"
    )
    assert [each.estimator for each in diagnosis.estimators] == ["sigmoid-adjusted", "reinmax"]
    found = bgan.explore(run, tmp_path / "pictures", nearest=False, device="cpu")
    assert found.page.is_file()
    assert all(path.is_file() for path in found.pictures)
