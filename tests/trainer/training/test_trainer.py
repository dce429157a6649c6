import math
import re

import pytest
import torch

from bgan.trainer.common.errors import DeviceError, DivergenceError
from bgan.trainer.config.presets import preset_values
from bgan.trainer.config.training import TrainingConfig
from bgan.trainer.data.dataset import BinaryDataset
from bgan.trainer.training.trainer import StepInputs, Trainer, resolve_device

CPU = torch.device("cpu")


def _dataset(count=40, shape=(1, 8, 8)):
    images = (torch.rand(count, *shape, generator=torch.Generator().manual_seed(2)) < 0.3).to(torch.uint8)
    return BinaryDataset("random", images, torch.zeros(count, dtype=torch.int64))


def _config(**settings):
    return TrainingConfig.resolve(**{"batch_size": 8, "latent_size": 6, "epochs": 3, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"neuron": "sbn", "objective": "wgan"},
        {"neuron": "real", "objective": "gan"},
        {"network": "cnn", "neuron": "sbn"},
        {"objective": "gan", "optimizer": "rmsprop", "estimator": "identity"},
        {"objective": "wgan", "network": "cnn", "discriminator_norm": "batch"},
        {"neuron": "sbn", "estimator": "reinmax"},
        {"neuron": "sbn", "estimator": "st-gumbel"},
        {"neuron": "sbn", "estimator": "reinforce"},
        {"neuron": "sbn", "estimator": "reinforce-per-unit", "slope_rate": 1.5},
        {"neuron": "sbn", "estimator": "reinforce-loo", "estimator_samples": 3},
        {"neuron": "sbn", "estimator": "rebar", "network": "cnn"},
        {"neuron": "sbn", "estimator": "relax", "objective": "gan", "fresh_batches": False},
        {"neuron": "sbn", "estimator": "bgan", "estimator_samples": 4, "objective": "gan"},
        {
            **preset_values("published"),
            "epochs": 3,
            "discriminator_bursts": False,
            "neuron": "sbn",
            "network": "cnn",
        },
        {
            "objective": "relativistic",
            "ema_decay": 0.9,
            "output_bias": "mean",
            "learning_rate_decay": "cosine",
        },
        {"objective": "relativistic", "network": "doubling-cnn", "ema_decay": 0.99, "neuron": "sbn"},
        {"objective": "relativistic", "discriminator_norm": "batch", "fresh_batches": False},
        {"objective": "relativistic", "discriminator": "mlp+strided-cnn", "network": "doubling-cnn"},
    ],
)
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(settings):
    _assert_resumed_equals_unbroken(_config(**settings))


@pytest.mark.usefixtures("training")  # for seconds
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit_through_bursts():
    recipe = {**preset_values("published"), "epochs": 3}
    _assert_resumed_equals_unbroken(_config(**recipe, objective="wgan", discriminator_norm="affine"))


def _assert_resumed_equals_unbroken(config):
    unbroken = Trainer(config, _dataset(), CPU)
    for _ in range(7):  # to the middle of the second epoch
        unbroken.train_step()
    second = Trainer(config, _dataset(), CPU)
    second.load_state_dict({name: tensor.clone() for name, tensor in unbroken.state_dict().items()}, unbroken.step)
    losses = [unbroken.train_step() for _ in range(4)]
    assert [second.train_step() for _ in range(4)] == losses
    expected, found = unbroken.state_dict(), second.state_dict()
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    assert torch.equal(unbroken.sample_grid(), second.sample_grid())


@pytest.mark.parametrize(
    ("discriminator", "norm"), [("mlp", "none"), ("strided-cnn", "affine"), ("cnn", "none"), ("mlp", "batch")]
)
def test_the_relativistic_loss_is_the_one_of_double_backward(discriminator, norm):
    config = _config(
        objective="relativistic", discriminator=discriminator, discriminator_norm=norm, penalty_weight=0.7
    )
    trainer = Trainer(config, _dataset(shape=(1, 9, 10)), CPU)
    critic = trainer.discriminators.double()[0]
    real, fake = torch.rand(2, 8, 1, 9, 10, dtype=torch.float64, requires_grad=True).unbind()

    def gradients(loss):
        return torch.autograd.grad(loss, list(critic.parameters()), allow_unused=True, materialize_grads=True)

    logits = critic(real), critic(fake)
    squares = [
        torch.autograd.grad(value.sum(), images, create_graph=True)[0].square().sum(dim=(1, 2, 3))
        for value, images in zip(logits, (real, fake), strict=True)
    ]
    proper = torch.log1p(torch.exp(logits[1] - logits[0])).mean()
    penalty = 0.7 / 2 * (squares[0].mean() + squares[1].mean())
    expected = gradients(proper + penalty)

    inputs = StepInputs(
        real=real.detach(),
        labels=None,
        passed=None,
        slope=1.0,
        random=torch.Generator(),
        draw_transform=lambda count: None,
    )
    loss, weighted = trainer._discriminator_loss(critic, fake.detach(), inputs)
    torch.testing.assert_close((loss, weighted), (proper, penalty))
    torch.testing.assert_close(gradients(loss + weighted), expected)


def test_the_generator_is_judged_against_the_real_images_of_its_iteration():
    trainer = Trainer(_config(objective="relativistic"), _dataset(), CPU)
    judged = []
    trainer.discriminators[0].register_forward_hook(
        lambda module, inputs, logits: judged.append((inputs[0], logits))
    )
    loss = trainer.train_step().generator
    (real_images, real), (_, fake) = judged
    assert torch.equal(real_images, trainer.batches.batch(0))
    assert loss == pytest.approx(torch.log1p(torch.exp(real - fake)).mean().item(), rel=1e-5)


@pytest.mark.parametrize("objective", ["relativistic", "wgan-gp"])
def test_several_discriminators_are_trained_side_by_side_and_their_losses_add_up(objective):
    config = _config(objective=objective, discriminator="mlp+strided-cnn", discriminator_steps=1)
    trainer = Trainer(config, _dataset(), CPU)
    before = [[parameter.clone() for parameter in judge.parameters()] for judge in trainer.discriminators]
    fakes = []
    trainer.discriminators[0].register_forward_hook(lambda module, inputs, logits: fakes.append(inputs[0]))
    loss = trainer.train_step().generator
    for judge, parameters in zip(trainer.discriminators, before, strict=True):
        pairs = zip(judge.parameters(), parameters, strict=True)
        assert all(not torch.equal(a, b) for a, b in pairs if a.ndim > 1)

    real, fake = trainer.batches.batch(0), fakes[-1].detach()
    with torch.no_grad():
        real_logits, fake_logits = (
            torch.stack([judge(x) for judge in trainer.discriminators]) for x in (real, fake)
        )
    paired = torch.log1p(torch.exp(real_logits - fake_logits)).sum(0).mean()
    expected = paired if objective == "relativistic" else -fake_logits.sum(0).mean()
    assert loss == pytest.approx(expected.item(), rel=1e-4)


def test_neurons_of_training_and_of_samples_may_differ():
    trainer, stochastic = (
        Trainer(_config(neuron=neuron, training_neuron="sbn", estimator="reinmax"), _dataset(), CPU)
        for neuron in ("dbn", "sbn")
    )
    assert [trainer.train_step() for _ in range(6)] == [stochastic.train_step() for _ in range(6)]
    with torch.no_grad():
        logits = trainer.sampled_generator.eval()(trainer._grid_latents)
    assert torch.equal(trainer.sample_grid(), (logits > 0).float())
    assert not torch.equal(stochastic.sample_grid(), trainer.sample_grid())


def test_each_discriminator_takes_the_steps_that_it_would_take_alone():
    """Their weights meet in no loss, so side by side on the same images each goes its own way."""
    alone, beside = (
        Trainer(_config(objective="relativistic", discriminator=names), _dataset(), CPU)
        for names in ("strided-cnn", "strided-cnn+mlp")
    )
    alone.train_step(), beside.train_step()
    for a, b in zip(alone.discriminators[0].parameters(), beside.discriminators[0].parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_averaged_generator_is_the_one_sampled_and_kept():
    trainer = Trainer(_config(ema_decay=0.5, learning_rate=0.1), _dataset(), CPU)
    expected = {name: tensor.clone() for name, tensor in trainer.generator.named_parameters()}
    for step in range(4):
        trainer.train_step()
        rate = min(0.5, (1 + step) / (5 + step))
        for name, tensor in trainer.generator.named_parameters():
            expected[name] = rate * expected[name] + (1 - rate) * tensor.detach()
    kept = trainer.state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(kept[f"average.{name}"], tensor)
    before = trainer.sample_grid()
    with torch.no_grad():
        for parameter in trainer.generator.parameters():
            parameter.zero_()
    assert torch.equal(trainer.sample_grid(), before)


def test_both_learning_rates_decay_and_end_at_zero():
    settings = {"learning_rate": 0.2, "discriminator_learning_rate": 0.4, "learning_rate_decay": "linear"}
    trainer = Trainer(_config(objective="gan", **settings), _dataset(), CPU)
    rates = []
    for _ in range(trainer.total_steps):
        trainer.train_step()
        optimizers = (trainer.generator_optimizer, trainer.discriminator_optimizer)
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
    assert rates == [pytest.approx([0.2 * (1 - i / 15), 0.4 * (1 - i / 15)]) for i in range(15)]


def test_another_seed_gives_another_run():
    losses = [Trainer(_config(seed=seed), _dataset(), CPU).train_step() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_every_discriminator_step_sees_fresh_images(monkeypatch):
    trainer = Trainer(_config(discriminator_steps=3), _dataset(), CPU)
    asked = _asked(trainer, monkeypatch)
    for _ in range(3):
        trainer.train_step()
    assert asked == list(range(9))


def test_fresh_images_stay_fresh_around_bursts(monkeypatch):
    trainer = Trainer(_config(discriminator_bursts=True, discriminator_steps=2), _dataset(), CPU)
    asked = _asked(trainer, monkeypatch)
    for step in (0, 24, 25, 26):
        trainer.step = step
        trainer.train_step()
    assert asked == [*range(100), *range(2400, 2500), 2500, 2501, 2502, 2503]


@pytest.mark.parametrize("neuron", ["dbn", "sbn"])
def test_one_batch_of_images_and_latents_serves_all_steps_of_an_iteration(neuron, monkeypatch):
    trainer = Trainer(_config(fresh_batches=False, discriminator_steps=3, neuron=neuron), _dataset(), CPU)
    asked = _asked(trainer, monkeypatch)
    latents, judged = [], []
    trainer.generator.register_forward_pre_hook(lambda module, inputs: latents.append(inputs[0]))
    trainer.discriminators[0].register_forward_pre_hook(lambda module, inputs: judged.append(inputs[0].detach()))
    before = [parameter.clone() for parameter in trainer.generator.parameters()]
    trainer.train_step()
    assert asked == [0, 0, 0]
    assert len(latents) == 1
    *critic, generator_step = judged  # three times real and fake images, and the fake ones of the generator's step
    fakes = [*(images[8:] for images in critic), generator_step]
    assert all(torch.equal(images[:8], critic[0][:8]) for images in critic)
    same = [torch.equal(fake, fakes[0]) for fake in fakes]
    assert same == ([True] * 4 if neuron == "dbn" else [True, False, False, False])
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.generator.parameters(), strict=True))


def test_batch_norm_in_the_discriminator_sees_real_and_fake_images_apart():
    trainer = Trainer(_config(discriminator_norm="batch", discriminator_steps=1, objective="gan"), _dataset(), CPU)
    sizes = []
    trainer.discriminators[0].register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    trainer.train_step()
    assert sizes == [8, 8, 8]


def _asked(trainer, monkeypatch):
    """The indices of the batches that the trainer asks for."""
    asked = []
    batch = trainer.batches.batch
    monkeypatch.setattr(trainer.batches, "batch", lambda index, shard: asked.append(index) or batch(index, shard))
    return asked


def test_the_slope_follows_the_epochs_and_stays_at_one_for_the_real_valued_model():
    trainer = Trainer(_config(slope_rate=1.5, slope_cap=2.0), _dataset(), CPU)
    slopes = []
    for _ in range(15):
        trainer.train_step()
        slopes.append(trainer.current_slope)
    assert slopes == [1.0] * 5 + [1.5] * 5 + [2.0] * 5
    real = Trainer(_config(neuron="real", slope_rate=1.5), _dataset(), CPU)
    for _ in range(6):
        real.train_step()
    assert real.current_slope == 1.0


def test_a_loss_that_is_not_finite_stops_it():
    trainer = Trainer(_config(), _dataset(), CPU)
    trainer.train_step()
    with torch.no_grad():
        trainer.discriminators[0].layers[-1].bias.fill_(float("nan"))
    with pytest.raises(DivergenceError) as caught:
        trainer.train_step()
    assert "the discriminator's loss is nan at step 1" in str(caught.value)
    assert "--learning-rate" in str(caught.value)


@pytest.mark.parametrize("neuron", ["dbn", "sbn"])
def test_logits_that_are_not_finite_stop_it_though_their_images_are_binary(neuron):
    trainer = Trainer(_config(neuron=neuron), _dataset(), CPU)
    with torch.no_grad():
        next(trainer.generator.parameters()).fill_(float("nan"))
    with pytest.raises(DivergenceError, match="the generator's logits are not finite at step 0"):
        trainer.train_step()


def test_a_loss_that_is_finite_and_beyond_all_measure_stops_too():
    trainer = Trainer(_config(objective="relativistic", learning_rate=0.3), _dataset(), CPU)
    with pytest.raises(DivergenceError) as caught:
        for _ in range(200):
            assert trainer.train_step().discriminator <= 100
    loss = float(re.search(r"the discriminator's loss is (\S+) at step", str(caught.value))[1])
    assert 100 < loss < math.inf


def test_an_estimate_that_is_not_finite_stops_it():
    trainer = Trainer(_config(neuron="sbn", estimator="rebar"), _dataset(), CPU)
    with torch.no_grad():
        trainer.estimator.scale.fill_(float("nan"))
    with pytest.raises(DivergenceError, match="the generator's gradient estimate is not finite at step 0"):
        trainer.train_step()


@pytest.mark.usefixtures("training")
@pytest.mark.parametrize(
    "estimator",
    ["sigmoid-adjusted", "reinmax", "st-gumbel", "concrete", "reinforce-loo", "muprop", "bgan", "maligan"],
)
def test_training_learns_the_marginals(estimator):
    """Images whose left half is on: the generator must find that out. MaliGAN's weights are shares of a batch."""
    images = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)
    images[..., :4] = 1
    dataset = BinaryDataset("halves", images, torch.zeros(64, dtype=torch.int64))
    batch_size = 64 if estimator == "maligan" else 8
    config = _config(objective="gan", learning_rate=1e-3, neuron="sbn", estimator=estimator, batch_size=batch_size)
    trainer = Trainer(config, dataset, CPU)
    for _ in range(300):
        trainer.train_step()
    means = trainer.sample_grid().mean(dim=(0, 1, 2))
    assert means[:4].min() > 0.9
    assert means[4:].max() < 0.1


def test_an_unknown_device_is_refused():
    with pytest.raises(DeviceError, match="device 'warp' cannot be used"):
        resolve_device("warp")
    assert resolve_device("cpu").type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_training_on_a_gpu():
    trainer = Trainer(_config(), _dataset(), resolve_device("auto"))
    trainer.train_step()
    assert next(trainer.generator.parameters()).is_cuda
