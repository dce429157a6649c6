"""Training through the command line: run folders, resuming, signals, and what can go wrong."""

import errno
import io
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image
from rich.console import Console

from bgan.trainer.config.training import TrainingConfig
from bgan.trainer.training.checkpoint import load_checkpoint, save_checkpoint
from bgan.trainer.training.loop import train
from bgan.trainer.training.run import held_alone
from tests.kit.cli import BGAN, bgan, error_line
from tests.kit.limits import files_of_at_most
from tests.kit.models import read_metrics

TRAIN = ("train", "--preset", "paper", "--dataset", "digits", "--discriminator-steps", "1")
SETTINGS = {"preset": "paper", "dataset": "digits", "discriminator_steps": 1}
STEPS_PER_EPOCH = 24


def _train(folder, *options):
    return bgan(*TRAIN, "--runs-dir", folder, "--name", "run", *options)


def _newest(run):
    (newest,) = sorted((run / "checkpoints").glob("*.safetensors"))[-1:]
    return newest.name, safetensors.torch.load_file(newest)


def _assert_same_state(first, second):
    (first_name, first_tensors), (second_name, second_tensors) = _newest(first), _newest(second)
    assert first_name == second_name
    assert first_tensors.keys() == second_tensors.keys()
    for name, tensor in first_tensors.items():
        assert torch.equal(tensor, second_tensors[name]), name


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, training):
    """Three epochs without a break."""
    folder = tmp_path_factory.mktemp("unbroken")
    result = _train(folder, "--epochs", 3)
    assert result.returncode == 0, result.stderr
    assert "epoch 3/3 step 72/72" in result.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def trained_one_epoch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one-epoch")
    assert _train(folder, "--epochs", 1).returncode == 0
    return folder / "run"


@pytest.fixture
def one_epoch(trained_one_epoch, tmp_path):
    """A run of one epoch, to go on with or to break."""
    return shutil.copytree(trained_one_epoch, tmp_path / "run")


def test_a_run_is_a_folder_to_audit(unbroken):
    config = json.loads((unbroken / "config.json").read_text())
    assert config == TrainingConfig.resolve(**SETTINGS, epochs=3).to_dict()
    metrics = read_metrics(unbroken)
    assert [record["step"] for record in metrics] == [24, 48, 50, 72]
    assert all(math.isfinite(record["discriminator"]) for record in metrics)
    assert metrics[-1]["slope"] == pytest.approx(1.21)
    samples = sorted((unbroken / "samples").iterdir())
    assert [path.name for path in samples] == [f"step_{24 * i:08d}.png" for i in range(4)]
    for path in samples:
        with Image.open(path) as picture:
            assert picture.size == (8 * 30 + 2, 8 * 30 + 2)
    assert list((unbroken / "events").glob("events.out.tfevents.*"))
    report = json.loads((unbroken / "report.json").read_text())
    assert (report["steps"], report["epochs"]) == (72, 3)


def test_more_epochs_go_on_as_if_there_had_been_no_break(one_epoch, unbroken):
    result = _train(one_epoch.parent, "--epochs", 3)
    assert result.returncode == 0, result.stderr
    assert "resuming at step 24" in result.stderr
    _assert_same_state(one_epoch, unbroken)
    without_time = [[{**record, "seconds": 0} for record in read_metrics(run)] for run in (one_epoch, unbroken)]
    assert without_time[0] == without_time[1]
    again = _train(one_epoch.parent, "--epochs", 3)
    assert again.returncode == 0
    assert "resume it with more --epochs" in again.stderr


@pytest.mark.usefixtures("training")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, number):
    command = [str(BGAN), *TRAIN, "--runs-dir", str(tmp_path), "--name", "run", "--epochs", "500"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    _wait_for(tmp_path / "run" / "samples" / "step_00000024.png")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    name, _ = _newest(tmp_path / "run")
    step = int(name.removeprefix("step_").removesuffix(".safetensors"))
    assert f"bgan: {number.name}: stopped and saved at step {step}" in errors
    assert "Traceback" not in errors

    epochs = step // STEPS_PER_EPOCH + 1
    result = _train(tmp_path, "--epochs", epochs)
    assert result.returncode == 0, result.stderr
    assert f"resuming at step {step}" in result.stderr
    assert _train(tmp_path / "unbroken", "--epochs", epochs).returncode == 0
    _assert_same_state(tmp_path / "run", tmp_path / "unbroken" / "run")


@pytest.mark.parametrize("command", [TRAIN, ("export",), ("evaluate",), ("explore",), ("diagnose-gradients",)])
def test_a_signal_while_libraries_load_ends_the_command(tmp_path, command):
    """NumPy's import does not bear a KeyboardInterrupt: torch swallows what becomes of it, or fails otherwise."""
    command = [str(BGAN), *command, "--runs-dir", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    _wait_for_library(process.pid, "_multiarray_umath")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "internal error" not in errors


def test_damaged_metrics_are_said_once_and_stop_nothing(one_epoch, unbroken):
    with (one_epoch / "metrics.jsonl").open("ab") as file:
        file.write(b"\0\0\0\0\n" + b'{"step": 24, "epo')
    result = _train(one_epoch.parent, "--epochs", 3)
    assert result.returncode == 0, result.stderr
    (warning,) = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert warning.endswith("metrics.jsonl had 2 damaged lines, left out now; the run resumes from its checkpoint")
    assert [record["step"] for record in read_metrics(one_epoch)] == [24, 48, 50, 72]
    _assert_same_state(one_epoch, unbroken)


def test_a_run_that_is_being_trained_is_refused(one_epoch):
    with held_alone(one_epoch):
        line = error_line(_train(one_epoch.parent, "--epochs", 2))
    assert line == f"bgan: another process trains {one_epoch}; wait for it, or choose another --name"
    assert [record["step"] for record in read_metrics(one_epoch)] == [24]


@pytest.mark.parametrize("name", ["my run", "sweep/seed0", "größe", "../x", ".hidden", "-x", "x" * 129, "a\nb"])
def test_a_name_that_no_model_can_have_is_refused_before_the_training(tmp_path, name):
    result = bgan(*TRAIN, "--epochs", 500, "--runs-dir", tmp_path / "runs", f"--name={name}")
    line = error_line(result)
    assert "cannot be a model's" in line
    assert list(tmp_path.iterdir()) == []
    advice = shlex.split(line.partition("such as ")[2])
    assert bgan(*TRAIN, "--dry-run", "--runs-dir", tmp_path / "runs", *advice).returncode == 0


@pytest.mark.usefixtures("exporting")
def test_a_run_of_a_name_that_is_no_models_resumes_and_is_exported_under_another(one_epoch, tmp_path):
    one_epoch.rename(tmp_path / "my run")
    result = bgan(*TRAIN, "--runs-dir", tmp_path, "--name", "my run", "--epochs", 1)
    next_command = shlex.split(result.stdout.partition("next: ")[2])
    assert next_command == ["bgan", "export", "my run", "--runs-dir", str(tmp_path)]
    refused = error_line(bgan(*next_command[1:], cwd=tmp_path))
    advice = shlex.split(refused.partition("such as ")[2])
    models = tmp_path / "models to serve"
    result = bgan(*next_command[1:], *advice, "--models", models)
    assert (models / "my-run.onnx").is_file()
    assert f"next: bgan serve --models '{models}'" in result.stdout


class _ClosedTerminal(io.StringIO):
    """A terminal that is gone once the training shows something."""

    def write(self, text):
        if " step " in text:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().write(text)


def test_a_training_whose_terminal_is_gone_goes_on(tmp_path):
    console = Console(file=_ClosedTerminal())
    train(TrainingConfig.resolve(**SETTINGS, epochs=1), tmp_path / "run", console, pytest.fail)
    assert _newest(tmp_path / "run")[0] == "step_00000024.safetensors"


def test_a_truncated_checkpoint_falls_back_and_says_so(one_epoch, unbroken):
    assert _train(one_epoch.parent, "--epochs", 2).returncode == 0
    path = one_epoch / "checkpoints" / "step_00000048.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    result = _train(one_epoch.parent, "--epochs", 3)
    assert result.returncode == 0, result.stderr
    assert "warning: checkpoint" in result.stderr
    assert "falling back to the one before it" in result.stderr
    assert "resuming at step 24" in result.stderr
    _assert_same_state(one_epoch, unbroken)


def test_checkpoints_that_are_all_damaged_are_one_line(one_epoch):
    (path,) = (one_epoch / "checkpoints").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    for result in (_train(one_epoch.parent, "--epochs", 2), bgan("export", one_epoch)):
        line = error_line(result)
        assert f"no checkpoint in {path.parent} is whole; move the run's folder away to start again" in line
    assert len(list(path.parent.iterdir())) == 2


def test_other_settings_are_refused_and_named(one_epoch):
    line = error_line(_train(one_epoch.parent, "--seed", 1, "--neuron", "sbn"))
    assert "written by other settings (neuron dbn -> sbn, training-neuron dbn -> sbn, seed 0 -> 1)" in line


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    assert "is not the folder of a run" in error_line(_train(tmp_path))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path):
    line = error_line(_train(tmp_path, "--learning-rate", "1e30"))
    assert "loss is" in line
    assert "at step" in line
    assert "try a lower --learning-rate" in line
    assert line.endswith("; there is no checkpoint yet")


def test_a_loss_that_stops_being_finite_keeps_the_checkpoint_and_says_so(one_epoch):
    checkpoint = load_checkpoint(one_epoch / "checkpoints" / "step_00000024.safetensors")
    checkpoint.tensors["discriminator.0.layers.5.bias"].fill_(math.inf)
    path = save_checkpoint(one_epoch / "checkpoints", checkpoint.tensors, checkpoint.meta)
    line = error_line(_train(one_epoch.parent, "--epochs", 3))
    assert "loss is nan at step 24, epoch 2" in line
    assert line.endswith("; the newest checkpoint is step_00000024.safetensors")
    assert load_checkpoint(path).meta == checkpoint.meta
    assert not (one_epoch / "checkpoints" / "step_00000048.safetensors").exists()


def test_no_room_keeps_the_newest_checkpoint_and_with_room_it_goes_on(one_epoch, unbroken):
    before = sorted((one_epoch / "checkpoints").iterdir())
    with files_of_at_most(2_000_000):
        line = error_line(_train(one_epoch.parent, "--epochs", 3))
    assert "the newest checkpoint is step_00000024.safetensors" in line
    assert sorted((one_epoch / "checkpoints").iterdir()) == before
    result = _train(one_epoch.parent, "--epochs", 3)
    assert result.returncode == 0, result.stderr
    assert "resuming at step 24" in result.stderr
    _assert_same_state(one_epoch, unbroken)


def test_no_room_is_said_in_one_line_and_leaves_no_litter(tmp_path):
    with files_of_at_most(2_000_000):
        line = error_line(_train(tmp_path, "--epochs", 1))
    assert "cannot write to" in line
    assert "Make room and run the same command again" in line
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_a_dry_run_prints_the_settings_and_makes_nothing(tmp_path):
    result = _train(tmp_path, "--dry-run", "--objective", "wgan")
    assert result.returncode == 0
    expected = TrainingConfig.resolve(**SETTINGS, objective="wgan").to_dict()
    assert json.loads(result.stdout) == {"run": str(tmp_path / "run"), **expected}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--epochs", "0"], "epochs is 0; it must be at least 1"),
        (["--learning-rate", "-1"], "learning-rate is -1.0; it must be above 0"),
        (["--neuron", "xbn"], "choose one of dbn, sbn, real"),
        (["--network", "rnn"], "choose one of mlp, cnn"),
        (["--dataset", "cifar"], "choose one of auto, mnist, digits"),
        (["--device", "warp"], "device 'warp' cannot be used"),
        (["--device", "mps"], "device 'mps' cannot be used"),
        (["--device", "meta"], "device 'meta' cannot be used"),
        (["--device", "privateuseone"], "device 'privateuseone' cannot be used"),
        (["--size", "99999x99999", "--fit", "pad"], "size is '99999x99999'; images may have 16,777,216 pixels"),
        (["--latent-size", "1000000000"], "latent-size is 1000000000; it must be at least 1 and below 1e+06"),
        (["--epochs", "1000000000000"], "epochs is 1000000000000; it must be at least 1 and below 1e+07"),
        (["--batch-size", "100000"], "batch-size is 100000, but there are only 1540 images"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, options, says):
    line = error_line(_train(tmp_path, *options))
    assert says in line
    assert len(line) < 300
    assert list(tmp_path.iterdir()) == []


def test_mnist_that_is_not_there_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way of any download")
    result = bgan("train", "--dataset", "mnist", "--data-dir", tmp_path / "file", "--runs-dir", tmp_path / "runs")
    assert "MNIST is not in" in error_line(result)


def _wait_for_library(pid, name, seconds=180):
    """Until a process has loaded a shared library."""
    end = time.monotonic() + seconds
    while name not in Path(f"/proc/{pid}/maps").read_text():
        assert time.monotonic() < end, f"{name} was not loaded"
        time.sleep(0.005)


def _wait_for(path, seconds=180):
    end = time.monotonic() + seconds
    while not os.path.exists(path):
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.05)
