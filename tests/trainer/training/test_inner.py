"""Training through neurons within the generator: gradients, penalties, resuming, and what is told of gates."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from bgan.trainer import Callback, TensorBoard
from bgan.trainer.config.estimators import ESTIMATORS
from bgan.trainer.config.training import TrainingConfig
from bgan.trainer.networks.build import configured_generator
from bgan.trainer.networks.inner import InnerPass
from bgan.trainer.networks.neurons import deterministic_binary
from bgan.trainer.training.estimators.straight_through import ThroughNeurons
from bgan.trainer.training.gate_shares import GateShares, gate_shares
from bgan.trainer.training.inner import InnerNeurons, LogitLosses
from tests.kit.models import read_metrics
from tests.kit.training import newest_digest, train_on_noise

SHAPE = (1, 2, 3)
SLOPE = 1.3
ROWS = 4000
GATED = {"gates": 3, "gate_neuron": "sbn", "network": "mlp", "latent_size": 4, "width": 0.1}
HIDDEN = {"hidden_neuron": "sbn", "network": "mlp", "latent_size": 4, "width": 0.004}
STRAIGHT_THROUGH = {
    "sigmoid-adjusted": lambda b, p: p * (1 - p),
    "identity": lambda b, p: torch.ones_like(b),
    "reinmax": lambda b, p: (b - p).abs() / 2,
}
UNBIASED = [name for name, entry in ESTIMATORS.items() if entry.is_unbiased]


class _Tiny:
    """A generator of 3 inner neurons at one latent that is repeated, and a discriminator with a curved loss."""

    def __init__(self, estimator, settings=GATED):
        kind = "gate" if "gates" in settings else "hidden"
        self.config = TrainingConfig.resolve(**settings, **{f"{kind}_estimator": estimator}, objective="gan")
        torch.manual_seed(3)
        generator = configured_generator(self.config, SHAPE, 0).eval().requires_grad_(False)
        first, second = nn.Linear(6, 8), nn.Linear(8, 1)
        for parameter in [*first.parameters(), *second.parameters()]:
            parameter.requires_grad_(False).mul_(3)
        self.losses = lambda images: F.softplus(second(torch.tanh(first(images.flatten(1))))).squeeze(1)
        self.passed = generator.inner_pass(torch.randn(1, 4).expand(ROWS, -1))
        self.count = generator.inner_count
        self.inner = InnerNeurons(self.config.inner, self.count)

    def estimates(self):
        """[ROWS, N], by the inner logits."""
        logits = self.passed.logits.clone().requires_grad_()
        outer, random = ThroughNeurons("dbn", "sigmoid-adjusted"), torch.Generator().manual_seed(7)
        estimate, *_ = self.inner(
            InnerPass(logits, self.passed.outputs),
            SLOPE,
            lambda found: outer(found, SLOPE, self.losses, random),
            LogitLosses(self.config.neurons, self.losses, SLOPE, random),
            random,
        )
        return ROWS * torch.autograd.grad(estimate.surrogate, logits)[0].double()

    def states(self):
        """All 2^N patterns [S, N], and their probabilities [S]."""
        states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=self.count)))
        p = torch.sigmoid(SLOPE * self.passed.logits[0])
        return states, torch.where(states == 1, p, 1 - p).prod(dim=1), p

    def judged(self, states):
        """The losses [S] of patterns [S, N], with the derivative of `sigmoid-adjusted` output neurons."""
        padded = torch.cat([states, states[:1].expand(ROWS - len(states), -1)])
        return self.losses(deterministic_binary(self.passed.outputs(padded), slope=SLOPE))[: len(states)]

    def gradient(self):
        states, probabilities, p = self.states()
        return SLOPE * ((probabilities * self.judged(states))[:, None] * (states - p)).sum(dim=0)

    def straight_through(self, derivative):
        states, probabilities, p = self.states()
        states.requires_grad_()
        (slopes,) = torch.autograd.grad(self.judged(states).sum(), states)
        return SLOPE * (probabilities[:, None] * slopes * derivative(states.detach(), p)).sum(dim=0)


def _assert_mean(estimates, expected):
    error = estimates.std(dim=0) / len(estimates) ** 0.5
    assert ((estimates.mean(dim=0) - expected).abs() < 4.5 * error + 1e-5).all()


@pytest.mark.parametrize("settings", [GATED, HIDDEN], ids=["gates", "hidden"])
@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased_estimates_are_the_gradient_by_enumeration(name, settings):
    tiny = _Tiny(name, settings)
    expected = tiny.gradient()
    assert expected.norm() > 0.02
    tiny.estimates()  # sets what averages over batches before
    _assert_mean(tiny.estimates(), expected)


@pytest.mark.parametrize("settings", [GATED, HIDDEN], ids=["gates", "hidden"])
@pytest.mark.parametrize("name", STRAIGHT_THROUGH)
def test_straight_through_estimates_pass_on_the_derivative_of_the_output_neurons(name, settings):
    tiny = _Tiny(name, settings)
    _assert_mean(tiny.estimates(), tiny.straight_through(STRAIGHT_THROUGH[name]))


@pytest.mark.parametrize("name", ["st-gumbel", "concrete"])
def test_relaxed_estimates_pass_on_the_derivative_of_the_output_neurons(name):
    tiny, temperature = _Tiny(name), ESTIMATORS[name].temperature
    uniforms = torch.rand(tiny.passed.logits.shape, generator=torch.Generator().manual_seed(1))
    relaxed = torch.sigmoid((SLOPE * tiny.passed.logits + torch.logit(uniforms)) / temperature)
    judged = relaxed if name == "concrete" else (relaxed > 0.5).float()
    (slopes,) = torch.autograd.grad(tiny.judged(judged.requires_grad_()).sum(), judged)
    _assert_mean(tiny.estimates() - SLOPE * slopes * relaxed * (1 - relaxed) / temperature, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"gates": 2, "gate_estimator": "identity", "ema_decay": 0.9},
        *({"gates": 2, "gate_neuron": "sbn", "gate_estimator": name} for name in ("relax", "reinforce-per-unit")),
        {"hidden_neuron": "sbn", "hidden_estimator": "rebar", "neuron": "sbn"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_a_run_resumes_bit_for_bit_also_in_shards(tmp_path, settings):
    settings |= {"objective": "gan", "width": 0.05, "shards": 2}
    unbroken = train_on_noise(tmp_path / "unbroken", **settings)
    train_on_noise(tmp_path / "broken", epochs=1, **settings)
    resumed = train_on_noise(tmp_path / "broken", **settings)
    assert newest_digest(resumed) == newest_digest(unbroken)
    assert newest_digest(unbroken) != newest_digest(train_on_noise(tmp_path / "one", **settings | {"shards": 1}))


@pytest.mark.parametrize("neuron", ["dbn", "sbn"])
@pytest.mark.parametrize("rate", [0.25, 0.7])
def test_the_penalty_holds_the_rate_and_revives_a_dead_gate(neuron, rate):
    config = TrainingConfig.resolve(gates=4, gate_neuron=neuron, gate_rate=rate, latent_size=6, width=0.1)
    torch.manual_seed(1)
    generator = configured_generator(config, SHAPE, 0)
    torch.nn.init.constant_(generator.gate.bias[:1], -6)
    assert gate_shares(generator, 1.0).dead() == ([0] if neuron == "dbn" else [])
    inner = InnerNeurons(config.inner, 4)
    optimizer = torch.optim.Adam(generator.gate.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        inner.penalty(generator.gate_logits(torch.randn(64, 6)), 1.0).backward()
        optimizer.step()
    (shares,) = gate_shares(generator, 1.0).by_class
    assert shares == pytest.approx([rate] * 4, abs=0.08)


def test_what_is_told_of_a_runs_gates(tmp_path):
    class Kept(Callback):
        def on_step(self, step, losses):
            self.gates = losses.gates

    kept = Kept()
    run = train_on_noise(tmp_path / "run", TensorBoard(), kept, gates=3, width=0.05, gate_rate=0.6)
    record = read_metrics(run.folder)[-1]
    assert record["gates"] == [round(share, 4) for share in kept.gates]
    assert record["gate_rate"] == pytest.approx(sum(kept.gates) / 3)
    assert (record["gate_least"], record["gate_most"]) == (min(kept.gates), max(kept.gates))
    events = EventAccumulator(str(run.events)).Reload()
    for name in ("gate_rate", "gate_least", "gate_most"):
        assert events.Scalars(name)[-1].value == pytest.approx(record[name])


@pytest.mark.parametrize(
    ("by", "advice"), [("random", "--gate-rate"), ("latents", "--gate-penalty or --gate-rate")]
)
def test_dead_gates_are_named_at_the_end(tmp_path, by, advice):
    with pytest.warns(UserWarning, match="dead gates") as warned:
        train_on_noise(tmp_path / "run", gates=2, width=0.05, gate_by=by, gate_rate=1e-6)
    assert str(warned[0].message) == (
        "dead gates: 2 of 2, those of the parts 0, 1 (from 0), which run for fewer than 1 image in 1,000; "
        f"raise {advice}, or take fewer --gates"
    )


def test_shares_of_classes_are_weighed_by_their_images():
    shares = GateShares(torch.tensor([[1.0, 0.0], [0.0, 0.0]]).double().numpy())
    assert shares.overall((3, 1)).tolist() == [0.75, 0]
    assert shares.overall().tolist() == [0.5, 0]
    assert shares.dead() == [1]
