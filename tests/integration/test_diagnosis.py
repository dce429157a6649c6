"""`bgan diagnose-gradients` on runs so small that everything can be enumerated."""

import dataclasses
import itertools
import json
import math

import pytest
import torch
from PIL import Image

from bgan.trainer.accuracy import compare
from bgan.trainer.checkpoint import save_checkpoint, trained_discriminators, trained_generator
from bgan.trainer.diagnosis import Plan, diagnose
from bgan.trainer.errors import ConfigError
from bgan.trainer.estimator_table import ESTIMATORS
from bgan.trainer.flips import flip_differences
from bgan.trainer.networks import ImageShape, build_discriminator
from bgan.trainer.objectives import OBJECTIVES
from bgan.trainer.randomness import random_stream
from bgan.trainer.run import trained_checkpoint
from tests.support import bgan, make_run

SHAPE = (1, 2, 2)
PLAN = Plan(images=3, draws=1000, backgrounds=400)
NAMES = ("sigmoid-adjusted", "identity", "reinmax", "reinforce-loo", "disarm", "rebar")


@pytest.fixture(scope="module")
def sbn_run(tmp_path_factory):
    """An SBN generator and a critic, trained for a while at a high rate so that the critic is curved."""
    return make_run(
        tmp_path_factory.mktemp("runs") / "tiny",
        shape=SHAPE,
        neuron="sbn",
        steps=60,
        learning_rate=5e-3,
        slope_rate=1.05,
    )


@dataclasses.dataclass
class _Exact:
    """The truth of a run by enumeration, and its parts. Rows are images, columns pixels."""

    logits: torch.Tensor
    slope: float
    losses: object

    @classmethod
    def of(cls, run, images):
        checkpoint, config = trained_checkpoint(run, print), run.config()
        critics = trained_discriminators(config, checkpoint).double()
        latents = torch.randn(images, config.latent_size, generator=random_stream(0, "diagnosis"))
        with torch.no_grad():
            logits = trained_generator(config, checkpoint)(latents).flatten(1).double()
        objective = OBJECTIVES[config.objective]
        return cls(
            logits,
            checkpoint.progress.slope,
            lambda rows: sum(objective.generator_loss(critic(rows.reshape(-1, *SHAPE))) for critic in critics),
        )

    @property
    def states(self):
        return torch.tensor(list(itertools.product((0.0, 1.0), repeat=math.prod(SHAPE))), dtype=torch.float64)

    def state_probabilities(self, logits):
        p = torch.sigmoid(self.slope * logits)[:, None, :]
        return torch.where(self.states == 1, p, 1 - p).prod(dim=2)  # [B, 2^N]

    def gradient(self):
        logits = self.logits.clone().requires_grad_()
        expected = self.state_probabilities(logits) @ self.losses(self.states)
        return torch.autograd.grad(expected.sum(), logits)[0]

    def straight_through(self, derivative):
        """The expectation of f'(b) times `derivative(b, p)`."""
        states = self.states.requires_grad_()
        slopes = torch.autograd.grad(self.losses(states).sum(), states)[0]
        p = torch.sigmoid(self.slope * self.logits)[:, None, :]
        terms = self.slope * slopes * derivative(self.states, p)
        return (self.state_probabilities(self.logits)[:, :, None] * terms).sum(dim=1)


def test_the_diagnosis_agrees_with_enumeration(sbn_run):
    diagnosis = diagnose(sbn_run, PLAN, estimators=NAMES)
    found = {item.estimator: item for item in diagnosis.estimators}
    exact = _Exact.of(sbn_run, PLAN.images)
    gradient = exact.gradient()
    assert diagnosis.gradient_norm == pytest.approx(gradient.square().sum(dim=1).mean().sqrt().item(), rel=0.05)
    derivatives = {
        "sigmoid-adjusted": lambda b, p: p * (1 - p),
        "identity": lambda b, p: torch.ones_like(b),
        "reinmax": lambda b, p: (b - p).abs() / 2,
    }
    for name, derivative in derivatives.items():
        mean = exact.straight_through(derivative)
        bias = ((mean - gradient).norm() / gradient.norm()).item()
        accuracy = found[name].accuracy
        assert abs(accuracy.squared_bias - bias**2) < 4 * accuracy.squared_bias_error + 0.1 * bias**2
        cosine = torch.nn.functional.cosine_similarity(mean.flatten(), gradient.flatten(), dim=0).item()
        assert accuracy.cosine == pytest.approx(cosine, abs=4 * accuracy.cosine_error + 0.01)
    assert found["sigmoid-adjusted"].accuracy.is_biased
    for name in ("reinforce-loo", "disarm", "rebar"):
        accuracy = found[name].accuracy
        assert accuracy.squared_bias < 3 * accuracy.squared_bias_error
        assert accuracy.noise > found["sigmoid-adjusted"].accuracy.noise
    evaluations = {name: item.evaluations for name, item in found.items()}
    assert evaluations == dict(zip(NAMES, (1, 1, 1, 8, 2, 3), strict=True))


def test_deterministic_neurons_are_compared_with_their_flips(tmp_path):
    run = make_run(tmp_path / "dbn", shape=SHAPE, neuron="dbn", steps=20, learning_rate=5e-3)
    diagnosis = diagnose(run, Plan(images=4, draws=20))
    exact = _Exact.of(run, 4)
    bits = (exact.logits > 0).double()
    p = torch.sigmoid(exact.slope * exact.logits)
    reference = (
        torch.stack(
            [
                p[:, i] * (1 - p[:, i]) * (exact.losses(_with(bits, i, 1.0)) - exact.losses(_with(bits, i, 0.0)))
                for i in range(4)
            ],
            dim=1,
        )
        * exact.slope
    )
    images = bits.clone().requires_grad_()
    slopes = torch.autograd.grad(exact.losses(images).sum(), images)[0]
    estimates = {"sigmoid-adjusted": exact.slope * p * (1 - p) * slopes, "identity": exact.slope * slopes}
    assert [item.estimator for item in diagnosis.estimators] == list(estimates)
    for item in diagnosis.estimators:
        expected = (estimates[item.estimator] - reference).norm() / reference.norm()
        assert item.accuracy.bias == pytest.approx(expected.item(), rel=1e-3)
        assert (item.accuracy.noise, item.accuracy.bias_error) == (0, 0)
    assert "there is no true gradient" in diagnosis.reference
    assert diagnosis.refused.keys() == ESTIMATORS.keys() - estimates.keys()


def _with(bits, pixel, value):
    changed = bits.clone()
    changed[:, pixel] = value
    return changed


@pytest.mark.parametrize("network", ["mlp", "cnn"])
@pytest.mark.parametrize("norm", ["none", "affine"])
def test_flips_in_one_product_are_flips_one_by_one(network, norm):
    shape = ImageShape(2, 9, 7)
    critic = build_discriminator(network, shape, norm=norm).requires_grad_(False)
    images = (torch.rand(2, *shape, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    found = flip_differences(critic, torch.nn.functional.softplus, images)
    assert found.shape == (2, 126)
    for pixel in (0, 5, 62, 63, 125):
        on, off = images.clone(), images.clone()
        on.view(2, -1)[:, pixel], off.view(2, -1)[:, pixel] = 1, 0
        expected = torch.nn.functional.softplus(critic(on)) - torch.nn.functional.softplus(critic(off))
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
    names = [item.estimator for item in diagnose(run, Plan(images=2, draws=20, backgrounds=20)).estimators]
    assert "relax" in names
    assert "maligan" not in names
    names = [item.estimator for item in diagnose(run, Plan(images=2, draws=20), neuron="dbn").estimators]
    assert names == ["sigmoid-adjusted", "identity"]


@pytest.mark.parametrize(
    ("settings", "options", "says"),
    [
        ({"neuron": "real"}, {}, "--neuron sbn takes them as stochastic"),
        ({"discriminator_norm": "batch", "objective": "gan"}, {}, "depends on the others of its batch"),
        ({}, {"estimators": ["newton"]}, "estimator is 'newton'; choose one of sigmoid-adjusted, identity"),
        ({}, {"estimators": ["rebar"]}, "the estimator rebar needs neurons that are drawn"),
        ({}, {"neuron": "xbn"}, "choose one of dbn, sbn, real"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(settings, options, says, tmp_path):
    run = make_run(tmp_path / "run", shape=SHAPE, steps=1, **settings)
    with pytest.raises(ConfigError) as caught:
        diagnose(run, Plan(images=2, draws=20, backgrounds=20), **options)
    assert says in str(caught.value)


def test_a_gradient_of_zero_is_no_measure(tmp_path):
    run = make_run(tmp_path / "run", shape=SHAPE, neuron="sbn", steps=1)
    checkpoint = trained_checkpoint(run, print)
    for name in ("discriminator.0.layers.5.weight", "discriminator.0.layers.5.bias"):
        checkpoint.tensors[name].zero_()
    save_checkpoint(run.checkpoints, checkpoint.tensors, checkpoint.progress)
    with pytest.raises(ConfigError, match="not told from 0; give more --backgrounds"):
        diagnose(run, Plan(images=2, draws=20, backgrounds=20))


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
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("bgan: the estimator bgan weights images by the density ratio")
