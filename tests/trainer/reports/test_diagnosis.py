"""`bgan diagnose-gradients` on runs so small that everything can be enumerated."""

import dataclasses
import itertools
import json
import math

import pytest
import torch
from PIL import Image

from bgan.trainer.common.errors import ConfigError
from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.common.rng import random_stream
from bgan.trainer.config.estimators import ESTIMATORS
from bgan.trainer.data.catalog import load_dataset
from bgan.trainer.networks.discriminators import Discriminators, build_discriminator
from bgan.trainer.reports.diagnosis.diagnose import DiagnosisOptions, diagnose
from bgan.trainer.reports.diagnosis.estimates import compare
from bgan.trainer.reports.diagnosis.flips import discriminator_flip_differences, flip_differences
from bgan.trainer.training.checkpoint import save_checkpoint, trained_discriminators, trained_generator
from bgan.trainer.training.objectives import OBJECTIVES, ImageLosses
from bgan.trainer.training.run import trained_checkpoint
from tests.kit.cli import bgan
from tests.kit.models import make_run

SHAPE = (1, 2, 2)
PLAN = DiagnosisOptions(images=8, draws=300, backgrounds=400)
NAMES = ("sigmoid-adjusted", "identity", "reinmax", "reinforce-loo", "disarm", "rebar")
FREE = [28 * row + column for row in (12, 15) for column in (10, 13, 16)]  # pixels of the digits


@pytest.fixture(scope="module")
def sbn_run(tmp_path_factory):
    """An SBN generator, and a discriminator that a high rate has made curved."""
    return make_run(
        tmp_path_factory.mktemp("runs") / "tiny",
        shape=SHAPE,
        neuron="sbn",
        steps=50,
        learning_rate=5e-3,
        slope_rate=1.05,
    )


def _paired_run(folder, neuron, discriminator):
    """A run of the digits whose discriminator compares pairs."""
    return make_run(
        folder,
        images=load_dataset("digits").images,
        objective="relativistic",
        neuron=neuron,
        discriminator=discriminator,
        steps=20,
        learning_rate=2e-3,
    )


def _tie_pixels(run):
    """Make the generator show the same bits for every latent, all but the free pixels.

    Their p (1 - p) is 0, and so is every estimate but that of `identity`.
    """
    checkpoint = trained_checkpoint(run, print)
    tied = torch.ones(784, dtype=torch.bool)
    tied[FREE] = False
    checkpoint.tensors["generator.layers.3.weight"][tied] = 0
    digit = load_dataset("digits").images[3].flatten().float()
    checkpoint.tensors["generator.layers.3.bias"][tied] = 60 * digit[tied] - 30
    save_checkpoint(run.checkpoints, checkpoint.tensors, checkpoint.meta)


@dataclasses.dataclass
class _Exact:
    """The truth of a run by enumeration, in float64, and its parts: B images, F free pixels, S states of them."""

    logits: torch.Tensor  # [B, F]
    slope: float
    judge: object  # [S, F] to [discriminators, S]
    real_logits: torch.Tensor  # [discriminators, B]
    generator_loss: object

    @classmethod
    def of(cls, run, images, free=slice(None)):
        checkpoint, config = trained_checkpoint(run, print), run.config()
        discriminators = trained_discriminators(config, checkpoint).double()
        latents = torch.randn(images, config.networks.latent_size, generator=random_stream(0, "diagnosis"))
        with torch.no_grad():
            logits = trained_generator(config, checkpoint)(latents).flatten(1).double()

        def judge(rows):
            pixels = (logits[:1] > 0).double().repeat(len(rows), 1)
            pixels[:, free] = rows
            return torch.stack(
                [
                    discriminator(pixels.reshape(-1, *checkpoint.meta.image_shape))
                    for discriminator in discriminators
                ]
            )

        real_logits = torch.zeros(len(discriminators), images, dtype=torch.float64)
        if config.objective.objective == "relativistic":
            real = load_dataset("digits").images
            random = random_stream(0, "diagnosis pairs")
            rows = torch.randint(len(real), (images,), generator=random)
            real_logits = torch.stack([discriminator(real[rows].double()) for discriminator in discriminators])
        generator_loss = OBJECTIVES[config.objective.objective].generator_loss
        return cls(logits[:, free], checkpoint.meta.slope, judge, real_logits, generator_loss)

    def losses(self, rows):
        """[S, F] to the losses [B, S] that they would have in each image's place."""
        differences = self.judge(rows)[:, None, :] - self.real_logits[:, :, None]  # [discriminators, B, S]
        return self.generator_loss(differences).sum(dim=0)

    @property
    def states(self):
        count = self.logits.shape[1]
        return torch.tensor(list(itertools.product((0.0, 1.0), repeat=count)), dtype=torch.float64)

    def state_probabilities(self, logits):
        p = torch.sigmoid(self.slope * logits)[:, None, :]
        return torch.where(self.states == 1, p, 1 - p).prod(dim=2)  # [B, S]

    def gradient(self):
        logits = self.logits.clone().requires_grad_()
        expected = (self.state_probabilities(logits) * self.losses(self.states)).sum()
        return torch.autograd.grad(expected, logits)[0]

    def slopes(self, rows):
        """f' [B, S, F] at [S, F]."""
        rows = rows.clone().requires_grad_()
        return torch.stack(
            [torch.autograd.grad(losses.sum(), rows, retain_graph=True)[0] for losses in self.losses(rows)]
        )

    def straight_through(self, derivative):
        """The expectation of f'(b) times `derivative(b, p)`."""
        p = torch.sigmoid(self.slope * self.logits)[:, None, :]
        terms = self.slope * self.slopes(self.states) * derivative(self.states, p)
        return (self.state_probabilities(self.logits)[:, :, None] * terms).sum(dim=1)


@pytest.mark.usefixtures("training")  # for seconds
def test_the_diagnosis_agrees_with_enumeration(sbn_run):
    _assert_agreement(diagnose(sbn_run, PLAN, estimators=NAMES), _Exact.of(sbn_run, PLAN.images))


@pytest.mark.usefixtures("training")  # for seconds
@pytest.mark.parametrize("discriminator", ["mlp", "strided-cnn"])
def test_the_diagnosis_of_pairs_agrees_with_enumeration(tmp_path, discriminator):
    run = _paired_run(tmp_path / "run", "sbn", discriminator)
    _tie_pixels(run)
    plan = DiagnosisOptions(images=2, draws=100, backgrounds=20)
    diagnosis = diagnose(run, plan, estimators=["reinmax", "reinforce-loo"])
    assert diagnosis.reference.endswith("every image is paired with a real one of digits")
    _assert_agreement(diagnosis, _Exact.of(run, plan.images, FREE))


def _assert_agreement(diagnosis, exact):
    found = {item.estimator: item for item in diagnosis.estimators}
    gradient = exact.gradient()
    assert diagnosis.gradient_norm == pytest.approx(gradient.square().sum(dim=1).mean().sqrt().item(), rel=0.05)
    derivatives = {
        "sigmoid-adjusted": lambda b, p: p * (1 - p),
        "identity": lambda b, p: torch.ones_like(b),
        "reinmax": lambda b, p: (b - p).abs() / 2,
    }
    for name in derivatives.keys() & found.keys():
        mean = exact.straight_through(derivatives[name])
        bias = ((mean - gradient).norm() / gradient.norm()).item()
        accuracy = found[name].accuracy
        assert abs(accuracy.squared_bias - bias**2) < 4 * accuracy.squared_bias_error + 0.1 * bias**2
        cosine = torch.nn.functional.cosine_similarity(mean.flatten(), gradient.flatten(), dim=0).item()
        assert accuracy.cosine == pytest.approx(cosine, abs=4 * accuracy.cosine_error + 0.01)
    assert found["sigmoid-adjusted"].accuracy.is_biased
    for name in {"reinforce-loo", "disarm", "rebar"} & found.keys():
        accuracy = found[name].accuracy
        assert accuracy.squared_bias < 3 * accuracy.squared_bias_error
        assert accuracy.noise > found["sigmoid-adjusted"].accuracy.noise
    evaluations = dict(zip(NAMES, (1, 1, 1, 8, 2, 3), strict=True))
    assert {name: item.evaluations for name, item in found.items()} == {name: evaluations[name] for name in found}


def test_deterministic_neurons_are_compared_with_their_flips(tmp_path):
    run = make_run(tmp_path / "dbn", shape=SHAPE, neuron="dbn", steps=20, learning_rate=5e-3)
    diagnosis = diagnose(run, DiagnosisOptions(images=4, draws=20))
    _assert_agreement_with_flips(diagnosis, _Exact.of(run, 4))
    assert "there is no true gradient" in diagnosis.reference
    assert diagnosis.refused.keys() == ESTIMATORS.keys() - {"sigmoid-adjusted", "identity"}


@pytest.mark.usefixtures("training")  # for seconds
@pytest.mark.parametrize("discriminator", ["mlp", "mlp+strided-cnn"])
def test_flips_of_deterministic_neurons_are_judged_in_pairs(tmp_path, discriminator):
    run = _paired_run(tmp_path / "run", "dbn", discriminator)
    _assert_agreement_with_flips(diagnose(run, DiagnosisOptions(images=2, draws=20)), _Exact.of(run, 2))


def _assert_agreement_with_flips(diagnosis, exact):
    bits = (exact.logits > 0).double()
    p = torch.sigmoid(exact.slope * exact.logits)
    reference = exact.slope * p * (1 - p) * (_losses_with(1.0, exact, bits) - _losses_with(0.0, exact, bits))
    slopes = exact.slopes(bits).diagonal().t()
    estimates = {"sigmoid-adjusted": exact.slope * p * (1 - p) * slopes, "identity": exact.slope * slopes}
    assert [item.estimator for item in diagnosis.estimators] == list(estimates)
    for item in diagnosis.estimators:
        expected = (estimates[item.estimator] - reference).norm() / reference.norm()
        assert item.accuracy.bias == pytest.approx(expected.item(), rel=1e-3)
        assert (item.accuracy.noise, item.accuracy.bias_error) == (0, 0)


def _losses_with(value, exact, bits):
    """The losses [B, F] of the images with one pixel after the other set to that value."""
    losses = []
    for image, row in enumerate(bits):
        changed = row.repeat(len(row), 1).fill_diagonal_(value)
        losses.append(exact.losses(changed)[image].detach())
    return torch.stack(losses)


@pytest.mark.parametrize("network", ["mlp", "cnn", "strided-cnn"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_losses_and_their_flips_are_those_of_the_images_one_by_one(network, objective):
    shape = ImageShape(2, 9, 7)
    discriminator = build_discriminator(network, shape).requires_grad_(False).double()
    random = torch.Generator().manual_seed(1)
    real, images = (torch.rand(2, 3, *shape, generator=random, dtype=torch.float64) < 0.4).double()
    pairs = objective == "relativistic"
    losses = ImageLosses(Discriminators([discriminator]), OBJECTIVES[objective], real if pairs else None)

    def loss(image, row):
        (logit,) = discriminator(image[None])
        logit = logit - discriminator(real[row][None])[0] if pairs else logit
        return -logit if objective.startswith("wgan") else torch.log1p(torch.exp(-logit))

    own = torch.stack([loss(image, row) for row, image in enumerate(images)])
    torch.testing.assert_close(losses(images), own)
    found = flip_differences(losses, images)
    assert found.shape == (3, 126)
    for row, pixel in itertools.product(range(3), range(0, 126, 5)):
        on, off = images[row].clone(), images[row].clone()
        on.view(-1)[pixel], off.view(-1)[pixel] = 1, 0
        torch.testing.assert_close(found[row, pixel], loss(on, row) - loss(off, row))


@pytest.mark.parametrize("network", ["mlp", "cnn"])
@pytest.mark.parametrize("norm", ["none", "affine"])
def test_flips_in_one_product_are_flips_one_by_one(network, norm):
    shape = ImageShape(2, 9, 7)
    discriminator = build_discriminator(network, shape, norm=norm).requires_grad_(False)
    images = (torch.rand(2, *shape, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    found = discriminator_flip_differences(discriminator, torch.nn.functional.softplus, images)
    assert found.shape == (2, 126)
    for pixel in (0, 5, 62, 63, 125):
        on, off = images.clone(), images.clone()
        on.view(2, -1)[:, pixel], off.view(2, -1)[:, pixel] = 1, 0
        expected = torch.nn.functional.softplus(discriminator(on)) - torch.nn.functional.softplus(
            discriminator(off)
        )
        torch.testing.assert_close(found[:, pixel], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_noise_is_not_taken_for_bias(bias):
    """Estimates whose mean has five times the norm of the truth in noise, and a truth that is noisy itself."""
    random = torch.Generator().manual_seed(3)
    true = torch.randn(4, 50, generator=random, dtype=torch.float64)
    off = torch.randn(4, 50, generator=random, dtype=torch.float64)
    off *= bias * true.norm() / off.norm()
    squared_biases = []
    for _ in range(200):
        truth = true + 0.5 * torch.randn(10, 4, 50, generator=random, dtype=torch.float64)
        draws = true + off + 5 * torch.randn(10, 4, 50, generator=random, dtype=torch.float64)
        accuracy = compare(draws, 0.0, truth)
        squared_biases.append(accuracy.squared_bias)
    squared_biases = torch.tensor(squared_biases)
    error = squared_biases.std().item()
    assert squared_biases.mean().item() == pytest.approx(bias**2, abs=4 * error / math.sqrt(200))
    assert accuracy.squared_bias_error == pytest.approx(error, rel=0.7)


def test_the_estimator_of_the_run_is_diagnosed_as_it_was_trained(tmp_path):
    run = make_run(tmp_path / "relax", shape=SHAPE, neuron="sbn", estimator="relax", steps=5)
    names = [
        item.estimator for item in diagnose(run, DiagnosisOptions(images=2, draws=20, backgrounds=20)).estimators
    ]
    assert "relax" in names
    assert "maligan" not in names
    names = [
        item.estimator for item in diagnose(run, DiagnosisOptions(images=2, draws=20), neuron="dbn").estimators
    ]
    assert names == ["sigmoid-adjusted", "identity"]


@pytest.mark.parametrize(
    ("settings", "options", "says"),
    [
        ({"neuron": "real"}, {}, "--neuron sbn treats the run's as stochastic ones"),
        ({"discriminator_norm": "batch", "objective": "gan"}, {}, "depends on the others of its batch"),
        ({"discriminator_norm": "batch", "objective": "relativistic"}, {}, "depends on the others of its batch"),
        ({}, {"estimators": ["newton"]}, "estimator is 'newton'; choose one of sigmoid-adjusted, identity"),
        ({}, {"estimators": ["rebar"]}, "the estimator rebar needs neurons that are drawn"),
        ({}, {"neuron": "xbn"}, "choose one of dbn, sbn, real"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(settings, options, says, tmp_path):
    run = make_run(tmp_path / "run", shape=SHAPE, steps=1, **settings)
    with pytest.raises(ConfigError) as caught:
        diagnose(run, DiagnosisOptions(images=2, draws=20, backgrounds=20), **options)
    assert says in str(caught.value)


def test_a_gradient_of_zero_is_no_measure(tmp_path):
    run = make_run(tmp_path / "run", shape=SHAPE, neuron="sbn", steps=1)
    checkpoint = trained_checkpoint(run, print)
    for name in ("discriminator.0.layers.5.weight", "discriminator.0.layers.5.bias"):
        checkpoint.tensors[name].zero_()
    save_checkpoint(run.checkpoints, checkpoint.tensors, checkpoint.meta)
    with pytest.raises(ConfigError, match="cannot be told from 0; give more --backgrounds"):
        diagnose(run, DiagnosisOptions(images=2, draws=20, backgrounds=20))


def test_pairs_without_their_data_are_one_line(tmp_path):
    make_run(tmp_path / "run", dataset="mnist", objective="relativistic", steps=1)
    (tmp_path / "file").write_text("in the way of any download")
    result = bgan("diagnose-gradients", "run", "--runs-dir", tmp_path, "--data-dir", tmp_path / "file")
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("bgan: ")]
    assert f"MNIST is not in {tmp_path / 'file'}" in line
    assert "--data-dir" in line
    assert not (tmp_path / "run" / "gradients.png").exists()


def test_the_command_prints_writes_and_draws(sbn_run):
    runs = sbn_run.folder.parent
    arguments = ("--images", 2, "--draws", 20, "--backgrounds", 20, "--runs-dir", runs)
    result = bgan("diagnose-gradients", "tiny", *arguments, "--json", runs / "all.json")
    assert result.returncode == 0, result.stderr
    for text in (
        "reinmax",
        "relax",
        "bias",
        "noise",
        "cosine",
        "in a batch of 8",
        "left out: bgan, maligan: weights",
    ):
        assert text in result.stdout
    measured = json.loads((runs / "all.json").read_text())
    assert [item["estimator"] for item in measured["estimators"]] == [
        name for name, entry in ESTIMATORS.items() if not entry.needs_density_ratio
    ]
    assert measured["estimators"][1]["accuracy"]["is_biased"] is True
    with Image.open(runs / "tiny" / "gradients.png") as picture:
        assert min(picture.size) > 400
    result = bgan("diagnose-gradients", "tiny", *arguments, "--estimator", "bgan")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("bgan: the estimator bgan weights images by the density ratio")
