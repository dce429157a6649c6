import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bgan.trainer.common.errors import ConfigError
from bgan.trainer.config.training import TrainingConfig
from bgan.trainer.data.dataset import BinaryDataset
from bgan.trainer.networks.inner import inner_pass
from bgan.trainer.training.distributed import ALONE, World
from bgan.trainer.training.shards import ShardMeans
from bgan.trainer.training.trainer import Trainer

CPU = torch.device("cpu")


def _dataset(count=40, shape=(1, 8, 8)):
    images = (torch.rand(count, *shape, generator=torch.Generator().manual_seed(2)) < 0.3).to(torch.uint8)
    return BinaryDataset("random", images, torch.arange(count) % 2)


def _trainer(**settings):
    config = TrainingConfig.resolve(**{"batch_size": 8, "latent_size": 6, "epochs": 3, **settings})
    return Trainer(config, _dataset(), CPU)


class _Scaled(nn.Module):
    """w x, which keeps the mean of what it saw and counts its calls."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(100))
        self.register_buffer("mean", torch.zeros(100))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs):
        self.mean += inputs.detach()
        self.calls += 1
        return self.weight * inputs


def test_what_shards_give_is_added_up_in_one_tree():
    inputs = torch.randn(8, 100, generator=torch.Generator().manual_seed(1))
    a, b, c, d, e, f, g, h = inputs
    expected = (((a + b) + (c + d)) + ((e + f) + (g + h))) / 8
    assert not torch.equal(expected, (a + b + c + d + e + f + g + h) / 8)
    module = _Scaled()
    values = ShardMeans(8, ALONE).backward(
        lambda shard: (module(inputs[shard]).sum(), inputs[shard]), [module], [module]
    )
    assert torch.equal(module.weight.grad, expected)
    assert torch.equal(module.mean, expected)  # each shard began with zeros
    assert torch.equal(values, expected)
    assert module.calls == 1


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"objective": "relativistic", "discriminator": "mlp+strided-cnn", "ema_decay": 0.9},
        {"network": "cnn", "neuron": "sbn", "augment": "translate:2", "conditional": True},
        {"objective": "wgan", "discriminator_norm": "batch", "fresh_batches": False},
        {"neuron": "sbn", "estimator": "reinforce-per-unit", "objective": "gan"},
        {"neuron": "sbn", "estimator": "relax", "objective": "gan", "fresh_batches": False},
    ],
)
def test_every_kind_of_run_trains_in_shards_and_resumes_bit_for_bit(settings):
    unbroken, second = (_trainer(shards=4, **settings) for _ in range(2))
    for _ in range(2):
        unbroken.train_step()
    second.load_state_dict({name: tensor.clone() for name, tensor in unbroken.state_dict().items()}, unbroken.step)
    assert unbroken.train_step() == second.train_step()
    found = second.state_dict()
    for name, tensor in unbroken.state_dict().items():
        assert torch.equal(tensor, found[name]), name
        assert tensor.isfinite().all(), name
    counts = [tensor for name, tensor in found.items() if name.startswith("generator.") and "num_batches" in name]
    assert all(count == counts[0] for count in counts)


def test_the_step_in_shards_is_that_of_the_whole_batch_where_no_row_depends_on_others():
    """Without batch normalization and noise the gradients are those of the batch but for rounding."""
    settings = {"generator_norm": "affine", "objective": "gan", "discriminator_steps": 1}
    whole, parts = _trainer(**settings), _trainer(shards=4, **settings)
    latents = torch.randn(8, 6, generator=torch.Generator().manual_seed(7))
    real = whole.batches.batch(0)
    assert torch.equal(torch.cat([parts.batches.batch(0, shard) for shard in range(4)]), real)
    whole._new_pass = lambda random, labels: inner_pass(whole.generator, latents, labels)
    parts._new_pass = lambda random, labels: inner_pass(parts.generator, latents[2 * random.shard :][:2], labels)
    parts._random = lambda purpose, shard: SimpleNamespace(shard=shard)
    expected, found = whole.train_step(), parts.train_step()
    assert found.discriminator == pytest.approx(expected.discriminator, rel=1e-5)
    assert found.generator == pytest.approx(expected.generator, rel=1e-5)
    for one, other in ((whole.generator, parts.generator), (whole.discriminators, parts.discriminators)):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-7)


def test_batch_normalization_sees_one_shard_and_its_statistics_are_the_mean_of_all():
    trainer, seen = _trainer(shards=4, discriminator_steps=1), []
    norm = next(module for module in trainer.generator.modules() if isinstance(module, nn.BatchNorm1d))
    norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    trainer.train_step()
    assert [len(inputs) for inputs in seen] == [2] * 8  # the discriminator's step, then the generator's
    mean = torch.zeros_like(norm.running_mean)
    for phase in (seen[:4], seen[4:]):
        mean = 0.99 * mean + 0.01 * torch.stack([inputs.mean(0) for inputs in phase]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean)
    assert norm.num_batches_tracked == 2


def test_shards_have_noise_of_their_own():
    trainer, drawn = _trainer(shards=2, discriminator_steps=1), []
    trainer.generator.register_forward_pre_hook(lambda module, inputs: drawn.append(inputs[0]))
    trainer.train_step()
    assert len({json.dumps(latents.tolist()) for latents in drawn}) == 4


def test_processes_share_shards_in_halves_and_quarters():
    assert [World(rank, 2).own_shards(8) for rank in range(2)] == [range(4), range(4, 8)]
    assert [World(rank, 4).own_shards(4) for rank in range(4)] == [range(rank, rank + 1) for rank in range(4)]
    with pytest.raises(ConfigError, match="shards is 6, which 3 processes cannot share"):
        World(0, 3).own_shards(6)


@pytest.mark.parametrize(("shards", "batch_size"), [(3, 12), (8, 8), (4, 6), (2, 3), (64, 64)])
def test_a_batch_that_does_not_come_in_so_many_shards_is_refused_with_what_fits(shards, batch_size):
    with pytest.raises(ConfigError, match=f"shards is {shards}, but a batch of {batch_size} can be in ") as caught:
        TrainingConfig.resolve(shards=shards, batch_size=batch_size)
    advised = str(caught.value).partition("can be in ")[2].partition(";")[0].split(", ")
    for count in advised:
        TrainingConfig.resolve(shards=int(count), batch_size=batch_size)
    assert batch_size < 4 or len(advised) > 1
