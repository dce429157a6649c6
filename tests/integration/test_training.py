import pytest
import torch

from bgan.trainer.config import TrainingConfig
from bgan.trainer.data import BinaryDataset
from bgan.trainer.errors import ConfigError, DivergenceError
from bgan.trainer.training import Trainer, resolve_device

CPU = torch.device("cpu")


def _dataset(count=40, shape=(1, 8, 8)):
    images = (torch.rand(count, *shape, generator=torch.Generator().manual_seed(2)) < 0.3).to(torch.uint8)
    return BinaryDataset("random", images, torch.zeros(count, dtype=torch.int64))


def _config(**settings):
    return TrainingConfig(**{"batch_size": 8, "latent_size": 6, "epochs": 3, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"neuron": "sbn", "objective": "wgan"},
        {"neuron": "real", "objective": "gan"},
        {"network": "cnn", "neuron": "sbn"},
        {"objective": "gan", "optimizer": "rmsprop", "estimator": "identity"},
    ],
)
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(settings):
    config = _config(**settings)
    unbroken = Trainer(config, _dataset(), CPU)
    losses = [unbroken.train_step() for _ in range(12)]

    first = Trainer(config, _dataset(), CPU)
    for _ in range(7):  # in the middle of the second epoch
        first.train_step()
    second = Trainer(config, _dataset(), CPU)
    second.load_state_dict({name: tensor.clone() for name, tensor in first.state_dict().items()}, first.step)
    assert [second.train_step() for _ in range(5)] == losses[7:]
    expected, found = unbroken.state_dict(), second.state_dict()
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    assert torch.equal(unbroken.sample_grid(), second.sample_grid())


def test_another_seed_gives_another_run():
    losses = [Trainer(_config(seed=seed), _dataset(), CPU).train_step() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_every_discriminator_step_sees_fresh_images(monkeypatch):
    trainer = Trainer(_config(critic_steps=3), _dataset(), CPU)
    asked = []
    batch = trainer.batches.batch
    monkeypatch.setattr(trainer.batches, "batch", lambda index: asked.append(index) or batch(index))
    for _ in range(3):
        trainer.train_step()
    assert asked == list(range(9))


def test_the_slope_follows_the_epochs_and_stays_at_one_for_the_real_valued_model():
    trainer = Trainer(_config(slope_rate=1.5, slope_cap=2.0), _dataset(), CPU)
    slopes = []
    for _ in range(15):
        trainer.train_step()
        slopes.append(trainer.weights_slope)
    assert slopes == [1.0] * 5 + [1.5] * 5 + [2.0] * 5
    real = Trainer(_config(neuron="real", slope_rate=1.5), _dataset(), CPU)
    for _ in range(6):
        real.train_step()
    assert real.weights_slope == 1.0


def test_a_loss_that_is_not_finite_stops_before_the_weights_change():
    trainer = Trainer(_config(), _dataset(), CPU)
    trainer.train_step()
    with torch.no_grad():
        trainer.discriminator.layers[-1].bias.fill_(float("nan"))
    before = {name: tensor.clone() for name, tensor in trainer.generator.named_parameters()}
    with pytest.raises(DivergenceError) as caught:
        trainer.train_step()
    assert "the discriminator's loss is nan at step 1" in str(caught.value)
    assert "--learning-rate" in str(caught.value)
    for name, tensor in trainer.generator.named_parameters():
        assert torch.equal(tensor, before[name])


def test_training_learns_the_marginals():
    """A thousand iterations on images whose left half is on: the generator must find that out."""
    images = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)
    images[..., :4] = 1
    dataset = BinaryDataset("halves", images, torch.zeros(64, dtype=torch.int64))
    trainer = Trainer(_config(objective="gan", learning_rate=1e-3, neuron="sbn"), dataset, CPU)
    for _ in range(300):
        trainer.train_step()
    means = trainer.sample_grid().mean(dim=(0, 1, 2))
    assert means[:4].min() > 0.9
    assert means[4:].max() < 0.1


def test_an_unknown_device_is_refused():
    with pytest.raises(ConfigError, match="device 'warp' cannot be used"):
        resolve_device("warp")
    assert resolve_device("cpu").type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_training_on_a_gpu():
    trainer = Trainer(_config(), _dataset(), resolve_device("auto"))
    trainer.train_step()
    assert next(trainer.generator.parameters()).is_cuda
