"""Callbacks: what they are told and when, what becomes of a training in which one raises, and what they cost."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from bgan.trainer.common.errors import CallbackError, DivergenceError
from bgan.trainer.common.grids import save_grid
from bgan.trainer.config.training import TrainingConfig
from bgan.trainer.training import loop
from bgan.trainer.training.callbacks import Callback, StopTraining
from bgan.trainer.training.checkpoint import checkpoint_files, load_checkpoint
from bgan.trainer.training.loop import train
from bgan.trainer.training.run import Run
from tests.kit.models import read_metrics
from tests.kit.replaying import Waits

METHODS = ("on_start", "on_step", "on_samples", "on_preactivations", "on_checkpoint", "on_evaluation", "on_end")
SETTINGS = {"dataset": "noise", "batch_size": 16, "latent_size": 8, "discriminator_steps": 1, "epochs": 2}


class Noting(Callback):
    """Notes each call; raises an error, where it has one, in the method of that name, from a step on."""

    def __init__(self, method="", error=None, step=0):
        self.calls, self.images = [], {}
        self.method, self.error, self.step = method, error, step

    def _note(self, name, step, *what):
        self.calls.append((name, step, *what))
        torch.rand(3), np.random.rand(3)  # of the global generators, which decide nothing
        if name == self.method and (step or 0) >= self.step:
            raise self.error

    def on_start(self, run):
        self._note("on_start", None, run.folder)

    def on_step(self, step, losses):
        self._note("on_step", step, losses)

    def on_samples(self, step, images):
        self.images[step] = images
        self._note("on_samples", step)

    def on_preactivations(self, step, probabilities):
        self._note("on_preactivations", step, probabilities)

    def on_checkpoint(self, step, path):
        assert load_checkpoint(path).meta.step == step
        self._note("on_checkpoint", step)

    def on_end(self, run):
        self._note("on_end", None, run.folder)

    @property
    def told(self):
        return [call[:2] for call in self.calls]


@pytest.fixture(scope="module", autouse=True)
def _images(tmp_path_factory):
    """56 images of noise, of which 48 are trained on."""
    folder = tmp_path_factory.mktemp("images")
    np.save(folder / "noise.npy", np.random.default_rng(3).random((56, 8, 12)) < 0.4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SETTINGS, "data", str(folder / "noise.npy"))
        yield


def _train(folder, *callbacks, console=None, **settings):
    """Three steps an epoch, two epochs."""
    config = TrainingConfig.resolve(**SETTINGS | settings)
    warnings = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BGAN_CACHE_DIR", f"{SETTINGS['data']}.cache")
        train(config, folder, console or Console(quiet=True), warnings.append, callbacks=callbacks)
    assert warnings == []
    return Run(folder)


def _digest(run):
    sidecar = json.loads(max(run.checkpoints.glob("*.json")).read_text())
    return sidecar["step"], sidecar["sha256"]


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """A run that nobody was told of."""
    return _train(tmp_path_factory.mktemp("without") / "run")


def test_each_method_is_called_where_its_thing_happens_and_changes_no_bit(without, tmp_path):
    callback = Noting()
    run = _train(tmp_path / "run", Callback(), callback)
    epoch = ("on_step", "on_samples", "on_preactivations", "on_checkpoint")
    expected = [("on_start", None), ("on_samples", 0), ("on_preactivations", 0)]
    expected += [(name, step) for step in (3, 6) for name in epoch]
    assert callback.told == [*expected, ("on_end", None)]
    assert callback.calls[0][2] == callback.calls[-1][2] == run.folder
    assert _digest(run) == _digest(without)
    assert sorted(path.name for path in run.samples.iterdir()) == sorted(
        path.name for path in without.samples.iterdir()
    )


def test_what_it_is_told_is_what_the_run_keeps(tmp_path):
    callback = Noting()
    run = _train(tmp_path / "run", callback, neuron="dbn", slope_rate=1.5)
    losses = [call[2] for call in callback.calls if call[0] == "on_step"]
    assert [(each.discriminator, each.generator, each.penalty, each.slope) for each in losses] == [
        tuple(record[name] for name in ("discriminator", "generator", "penalty", "slope"))
        for record in read_metrics(run.folder)
    ]
    assert [each.slope for each in losses] == [1, 1.5]
    for step, images in callback.images.items():
        assert (images.shape, images.dtype) == ((64, 1, 8, 12), np.float32)
        save_grid(images, tmp_path / "grid.png")
        with Image.open(tmp_path / "grid.png") as own, Image.open(run.samples / f"step_{step:08d}.png") as kept:
            assert own.tobytes() == kept.tobytes()
        (probabilities,) = [call[2] for call in callback.calls if call[:2] == ("on_preactivations", step)]
        assert np.array_equal(probabilities > 0.5, images.astype(bool))


def test_nothing_is_asked_of_the_device_for_steps_that_nobody_reads(tmp_path, monkeypatch):
    counts = []
    for name, callbacks in (("without", ()), ("with", (Callback(),))):
        with Waits(monkeypatch) as waits:
            _train(tmp_path / name, *callbacks, epochs=1, batch_size=8)  # 6 steps
            counts.append(waits.count)
        monkeypatch.undo()
    assert counts[1] == counts[0] + 2 * 2  # the preactivations of two grids of samples are copied


@pytest.mark.parametrize(
    ("method", "at", "saved"),
    [("on_start", 0, 0), ("on_samples", 0, 0), ("on_step", 3, 3), ("on_samples", 3, 3), ("on_checkpoint", 6, 6)],
)
def test_a_callback_that_raises_is_named_and_the_run_is_kept(without, tmp_path, method, at, saved):
    callback, other = Noting(method, ValueError("the disk\nis full"), step=at), Noting()
    with pytest.raises(CallbackError) as caught:
        _train(tmp_path / "run", other, callback)
    where = f"stopped and saved at step {saved}" if saved else "nothing is trained yet"
    assert str(caught.value) == (
        f"the callback Noting.{method} raised ValueError: the disk; {where}; the same command resumes it"
    )
    assert caught.value.__cause__ is callback.error
    assert callback.told[-2:] == [(method, at if method != "on_start" else None), ("on_end", None)]
    assert other.told[-1] == ("on_end", None)
    assert [load_checkpoint(path).meta.step for path in checkpoint_files(Run(tmp_path / "run").checkpoints)] == [
        *range(saved, 0, -3)
    ]
    assert _digest(_train(tmp_path / "run")) == _digest(without)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_callback_that_exits_or_is_interrupted_is_answered_with_a_checkpoint(without, tmp_path, error):
    with pytest.raises(
        CallbackError, match=rf"Noting\.on_step raised {type(error).__name__}.*; stopped and saved at"
    ):
        _train(tmp_path / "run", Noting("on_step", error))
    assert checkpoint_files(Run(tmp_path / "run").checkpoints)
    assert _digest(_train(tmp_path / "run")) == _digest(without)


def test_a_callback_that_raises_within_an_epoch_is_answered_with_a_checkpoint(without, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "READ_EVERY_STEPS", 2)
    callback = Noting("on_step", ValueError("no"), step=4)
    with pytest.raises(CallbackError, match="raised ValueError: no; stopped and saved at step 4; the same"):
        _train(tmp_path / "run", callback)
    assert [load_checkpoint(path).meta.step for path in checkpoint_files(tmp_path / "run" / "checkpoints")] == [
        4,
        3,
    ]
    assert _digest(_train(tmp_path / "run")) == _digest(without)


def test_what_on_end_raises_is_told_once_all_are_ended_and_hides_no_other_error(tmp_path):
    callback, other = Noting("on_end", OSError(28, "No space left")), Noting()
    with pytest.raises(CallbackError) as caught:
        _train(tmp_path / "run", callback, other)
    assert str(caught.value) == (
        "the callback Noting.on_end raised OSError: [Errno 28] No space left; the run is saved at step 6"
    )
    assert other.told[-1] == ("on_end", None)
    assert (tmp_path / "run" / "report.json").exists()

    console = Console(record=True, quiet=True)
    console.quiet = False
    with open("/dev/null", "w") as console.file, pytest.raises(DivergenceError, match="at step 0"):
        _train(tmp_path / "other", callback, console=console, learning_rate=1e30, objective="relativistic")
    assert "warning: the callback Noting.on_end raised OSError" in console.export_text()


class _Enough(StopTraining):
    def __init__(self, *, why):
        super().__init__(why)


def test_a_callback_stops_a_training_as_if_it_were_done(without, tmp_path):
    callback = Noting("on_step", _Enough(why="it is good"), step=3)
    run = _train(tmp_path / "run", callback)
    assert _digest(run)[0] == json.loads(run.report_file.read_text())["steps"] == 3
    assert callback.told[-2:] == [("on_step", 3), ("on_end", None)]
    assert _digest(_train(tmp_path / "run")) == _digest(without)


def test_a_run_that_is_trained_already_calls_nobody(tmp_path):
    _train(tmp_path / "run", epochs=1)
    callback = Noting()
    _train(tmp_path / "run", callback, epochs=1)
    assert callback.calls == []


def test_the_base_class_bears_every_call():
    for method in METHODS:
        count = 1 if method in {"on_start", "on_end"} else 2
        assert getattr(Callback(), method)(*[None] * count) is None
