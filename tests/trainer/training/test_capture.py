"""Iterations that no Python can disturb: how often the host waits for them, and their recordings."""

import io
import re

import pytest
import torch
from rich.console import Console

from bgan.trainer.common.errors import ConfigError, DivergenceError
from bgan.trainer.config.presets import preset_values
from bgan.trainer.config.training import TrainingConfig
from bgan.trainer.data.dataset import BinaryDataset
from bgan.trainer.training import trainer as trainer_module
from bgan.trainer.training.capture import CapturedIterations
from bgan.trainer.training.loop import train
from bgan.trainer.training.trainer import READ_EVERY_STEPS, Trainer
from tests.kit.replaying import Tape, Waits

CPU = torch.device("cpu")
SETTINGS = {
    "modern": {**preset_values("modern"), "network": "mlp", "conditional": True, "clusters": None},
    "paper": {**preset_values("paper"), "neuron": "sbn"},
    "cnn": {"network": "cnn", "augment": "translate:2+hflip", "objective": "gan", "discriminator_norm": "batch"},
    "one batch": {"fresh_batches": False, "objective": "gan", "learning_rate_decay": "cosine"},
    "reinforce": {"neuron": "sbn", "estimator": "reinforce-per-unit", "slope_rate": 1.3},
}
OTHERS = {
    "published": {**preset_values("published"), "discriminator_bursts": False},
    "rmsprop": {"objective": "wgan", "optimizer": "rmsprop"},
}


def _trainer(settings, **more):
    images = (torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(2)) < 0.3).to(torch.uint8)
    labels = torch.arange(40) % 2
    given = {**settings, "batch_size": 8, "latent_size": 6, "epochs": 3, **more}
    return Trainer(TrainingConfig.resolve(**given), BinaryDataset("random", images, labels, ("a", "b")), CPU)


@pytest.mark.parametrize("name", [*SETTINGS, *OTHERS])
def test_the_host_waits_once_for_all_iterations_since_the_last_reading(name, monkeypatch):
    trainer = _trainer({**SETTINGS, **OTHERS}[name])
    trainer.advance(), trainer.advance()  # REINFORCE asks twice whether it has a baseline
    with Waits(monkeypatch) as waits:
        for _ in range(5):
            trainer.advance()
        assert waits.count == 0
        trainer.read_losses()
        assert waits.count == 1


def test_it_waits_every_50_iterations_though_nobody_reads(monkeypatch):
    assert READ_EVERY_STEPS == 50
    monkeypatch.setattr(trainer_module, "READ_EVERY_STEPS", 5)
    trainer = _trainer({}, network="mlp")
    trainer._iterate = lambda count, batch_of: torch.zeros(5)  # what takes the time
    with Waits(monkeypatch) as waits:
        for _ in range(15):
            trainer.advance()
    assert waits.count == 2


def test_what_counts_as_waiting(monkeypatch):
    ones = torch.ones(3)
    with Waits(monkeypatch) as waits:
        ones.sum().item(), ones.tolist(), ones.nonzero(), ones.numpy(), bool(ones[0]), ones[ones > 0]
        assert waits.count == 6
        ones[torch.tensor([0, 2])].sum()
        assert waits.count == 6


@pytest.mark.parametrize("name", SETTINGS)
def test_a_recording_gives_the_bits_of_iterations_that_were_not_recorded(name):
    """What it replays are operations on tensors: a number of the host that changes would be an old one there."""
    plain, captured = _trainer(SETTINGS[name]), _trainer(SETTINGS[name], capture=True)
    captured._captured = CapturedIterations(captured._captured._iterate, CPU, record=Tape)
    for _ in range(8):
        plain.advance(), captured.advance()
    assert captured.read_losses() == plain.read_losses()
    expected = plain.state_dict()
    for key, tensor in captured.state_dict().items():
        assert torch.equal(tensor, expected[key]), key


def test_a_captured_run_resumes():
    settings = SETTINGS["modern"]
    plain, captured = _trainer(settings), _trainer(settings, capture=True)
    for _ in range(7):
        plain.advance(), captured.advance()
    resumed = _trainer(settings, capture=True)
    state = {name: tensor.clone() for name, tensor in captured.state_dict().items()}
    resumed.load_state_dict(state, captured.step)
    for _ in range(6):
        plain.advance(), captured.advance(), resumed.advance()
    assert plain.read_losses() == captured.read_losses() == resumed.read_losses()


def test_a_recording_with_numbers_of_the_host_would_have_other_bits():
    """So the recording above is one: this has the learning rates of the iteration that was recorded."""
    captured, plain = (_trainer(SETTINGS["one batch"], capture=is_captured) for is_captured in (True, False))
    captured._captured = CapturedIterations(captured._captured._iterate, CPU, record=Tape)
    captured._number = lambda name, value, dtype=None: value
    for _ in range(6):
        captured.advance(), plain.advance()
    weights = [next(each.generator.parameters()) for each in (captured, plain)]
    assert not torch.equal(*weights)


@pytest.mark.parametrize("at", [1, 4])
def test_a_divergence_is_told_of_its_iteration_though_it_is_read_later(at):
    trainer = _trainer({}, objective="gan")
    for step in range(7):
        if step == at:
            with torch.no_grad():
                trainer.discriminators[0].layers[-1].bias.fill_(float("nan"))
        trainer.advance()
    with pytest.raises(DivergenceError, match=f"the discriminator's loss is nan at step {at}, epoch 1"):
        trainer.read_losses()


def test_a_loss_between_sound_ones_of_an_iteration_is_found():
    """Of several steps the first that is not sound counts."""
    trainer = _trainer({}, objective="gan", discriminator_steps=3)
    losses = iter([1.0, float("inf"), 2.0])
    trainer._discriminator_step = lambda inputs, *batches: torch.tensor([next(losses), 0.0])
    trainer._generator_step = lambda inputs: torch.zeros(3)
    with pytest.raises(DivergenceError, match="the discriminator's loss is inf at step 0"):
        trainer.train_step()


def test_a_run_that_diverges_writes_no_checkpoint_of_it(tmp_path):
    """In the middle of an epoch; it is read before the end of the epoch is written."""
    config = TrainingConfig.resolve(
        dataset="digits", batch_size=128, objective="relativistic", network="mlp", learning_rate=3.0, epochs=2
    )
    with pytest.raises(DivergenceError) as caught:
        train(config, tmp_path / "run", Console(file=io.StringIO()), lambda text: None)
    step = int(re.search(r"at step (\d+), epoch 1;", str(caught.value))[1])
    assert 0 < step < 12
    assert str(caught.value).endswith("; there is no checkpoint yet")
    assert [path.name for path in (tmp_path / "run" / "samples").iterdir()] == ["step_00000000.png"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"optimizer": "rmsprop", "objective": "wgan"},
            "--optimizer rmsprop in the form torch; use adam in the form",
        ),
        ({"optimizer_form": "tensorflow"}, "--optimizer adam in the form tensorflow; use adam in the form torch"),
        ({"shards": 2}, "--shards; leave them out"),
        ({"neuron": "sbn", "estimator": "rebar"}, "--estimator rebar"),
    ],
)
def test_what_cannot_be_captured_is_refused(settings, says):
    with pytest.raises(ConfigError) as caught:
        _trainer(settings, capture=True)
    assert str(caught.value).startswith(f"capture does not go with {says}")
    assert str(caught.value).endswith("or train without --capture")
