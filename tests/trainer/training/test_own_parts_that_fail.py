"""Parts of one's own that cannot be trained, fail while they are, or draw: what is said, and what is kept."""

import threading
from contextlib import nullcontext

import pytest
import torch
from torch import nn

import bgan.trainer as bgan
from bgan.trainer.common.rng import global_generator
from bgan.trainer.training.checkpoint import load_newest_checkpoint
from tests.kit.own_networks import bars, tiny_config

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def dataset():
    return bars()


class Generator(nn.Module):
    """One layer, what becomes of its latents in place, and of its logits."""

    def __init__(self, change=lambda logits: logits, before=lambda latents: latents):
        super().__init__()
        self.layer, self.change, self.before = nn.Linear(6, 64), change, before

    def forward(self, latents):
        return self.change(self.layer(self.before(latents)).view(-1, *SHAPE))


class TrainsOtherwise(Generator):
    def forward(self, latents):
        logits = super().forward(latents)
        return logits.flatten(1) if self.training else logits


class Critic(nn.Module):
    def __init__(self, before=lambda images: images):
        super().__init__()
        self.layer, self.before = nn.Linear(64, 1), before

    def forward(self, images):
        return self.layer(self.before(images).flatten(1))


class Sum(nn.Module):
    def forward(self, images):
        return images.flatten(1).sum(dim=1)


UNTRAINABLE = {
    "frozen": (
        Generator().requires_grad_(False),
        "no gradient of the logits of the generator own:Generator reach",
    ),
    "detached": (Generator(lambda x: x.detach()), "reaches a parameter, so nothing can be trained"),
    "meta": (Generator().to("meta"), "the network own:Generator has weights on the device meta"),
    "in place": (
        Generator(before=lambda latents: latents.mul_(2)),
        "the generator own:Generator changes its latents in place",
    ),
    "in training": (
        TrainsOtherwise(),
        r"in training mode the generator own:TrainsOtherwise gives float32 \[4, 64\]",
    ),
}


@pytest.mark.parametrize("name", UNTRAINABLE)
def test_a_generator_that_learns_nothing_is_named_before_there_is_a_run(dataset, tmp_path, name):
    generator, message = UNTRAINABLE[name]
    with pytest.raises(bgan.ConfigError, match=message):
        bgan.train(tiny_config(), dataset, generator=generator, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("critic", "message"),
    [
        (Sum(), "the discriminator own:Sum has no parameters to train"),
        (Critic(lambda images: images.neg_()), "the discriminator own:Critic changes its images in place"),
    ],
)
def test_a_critic_that_cannot_be_trained_is_named_before_there_is_a_run(dataset, tmp_path, critic, message):
    with pytest.raises(bgan.ConfigError, match=message):
        bgan.train(tiny_config(objective="wgan"), dataset, discriminators=critic, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_that_fails_while_it_is_trained_is_named_and_the_run_is_kept(dataset, tmp_path):
    calls = []

    def tire(images):
        calls.append(len(images))
        if sum(count > 4 for count in calls) > 20:  # the trial has four rows
            raise ValueError("tired\nof it")
        return images

    networks = {"discriminators": Critic(tire), "folder": tmp_path / "run"}
    with pytest.raises(bgan.NetworkError) as raised:
        bgan.train(tiny_config(objective="wgan", epochs=4), dataset, **networks)
    assert "a part of your own (own:Critic) fails at step " in str(raised.value)
    assert "(ValueError: tired); the newest checkpoint is step_00000" in str(raised.value)
    assert "\n" not in str(raised.value)
    calls.clear()
    run = bgan.train(tiny_config(objective="wgan", epochs=4), dataset, **networks)
    assert run.sample(2).images.shape == (2, *SHAPE)


def test_trainings_in_threads_draw_what_each_draws_alone(dataset, tmp_path):
    torch.manual_seed(7)
    generator, states = Generator(nn.Dropout(0.5)), {}

    def train(name):
        run = bgan.train(tiny_config(epochs=4), dataset, generator=generator, folder=tmp_path / name)
        states[name] = load_newest_checkpoint(run.checkpoints, print).tensors

    before = torch.get_rng_state()
    train("alone")
    assert torch.equal(torch.get_rng_state(), before)  # the caller's own draws are left as they were
    threads = [threading.Thread(target=train, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("first", "second"):
        assert all(torch.equal(states[name][key], value) for key, value in states["alone"].items())


def test_one_thread_at_a_time_has_the_global_generator():
    def draw():
        with global_generator(2):
            torch.rand(1)

    other = threading.Thread(target=draw)
    with global_generator(1):
        other.start()
        other.join(0.05)
        assert other.is_alive()
        found = torch.rand(2)
    other.join()
    assert torch.equal(found, torch.rand(2, generator=torch.Generator().manual_seed(1)))


def test_a_network_given_in_eval_mode_is_trained_as_one_in_training_mode(dataset, tmp_path):
    class Once(bgan.Callback):
        def on_checkpoint(self, step, path):
            raise bgan.StopTraining

    torch.manual_seed(7)
    networks = {"generator": Generator(nn.Dropout(0.5)), "discriminators": Critic(nn.Dropout(0.5))}
    states = {}
    for name, callbacks in (("through", ()), ("resumed", (Once(),))):
        for each in networks.values():
            each.train(name == "through")
        bgan.train(tiny_config(epochs=2), dataset, **networks, callbacks=callbacks, folder=tmp_path / name)
        run = bgan.train(tiny_config(epochs=2), dataset, **networks, folder=tmp_path / name)
        states[name] = load_newest_checkpoint(run.checkpoints, print).tensors
    assert all(torch.equal(states["resumed"][key], value) for key, value in states["through"].items())


def _per_row(loss):
    return lambda *logits: loss(logits[-1])


OBJECTIVES = {
    "rows": (_per_row(abs), _per_row(abs), r"discriminator_loss of the objective own:mine gives \[4\] for logits"),
    "mean": (
        _per_row(torch.mean),
        _per_row(torch.mean),
        r"generator_loss of .* gives \[\] .* give a tensor \[4\]",
    ),
    "number": (_per_row(lambda fake: 3.0), _per_row(abs), "discriminator_loss of .* gives type float"),
    "broken": (
        _per_row(lambda fake: 1 / 0),
        _per_row(abs),
        r"own:mine fails for logits \[4\] \(ZeroDivisionError: ",
    ),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_that_gives_other_losses_is_named_before_there_is_a_run(dataset, tmp_path, name):
    discriminator_loss, generator_loss, message = OBJECTIVES[name]
    objective = bgan.Objective(name="mine", discriminator_loss=discriminator_loss, generator_loss=generator_loss)
    with pytest.raises(bgan.ConfigError, match=message):
        bgan.train(tiny_config(), dataset, objective=objective, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_training_within_a_callers_mode_without_gradients_is_that_without(dataset, tmp_path, mode):
    torch.manual_seed(7)
    generator, states = Generator(), []
    for name, context in (("within", mode()), ("without", nullcontext())):
        with context:
            run = bgan.train(tiny_config(), dataset, generator=generator, folder=tmp_path / name)
        states.append(load_newest_checkpoint(run.checkpoints, print).tensors)
    assert all(torch.equal(states[0][key], value) for key, value in states[1].items())


def test_a_run_of_other_arrays_is_named_by_their_name(dataset, tmp_path):
    bgan.train(tiny_config(), dataset, folder=tmp_path / "run")
    others = bgan.BinaryDataset.from_arrays(1 - dataset.numpy(), name="bars")
    with pytest.raises(bgan.RunError, match="run was trained on other images than bars has now; choose another"):
        bgan.train(tiny_config(), others, folder=tmp_path / "run")
