"""Training by several processes through the command line, each a real one."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch

from bgan.trainer.data.dataset import BatchStream
from bgan.trainer.training.callbacks import StopTraining
from bgan.trainer.training.trackers.tensorboard import TensorBoard
from tests.kit.cli import bgan, error_line
from tests.kit.ranks import Ranks, run_ranks
from tests.kit.waiting import eventually

pytestmark = pytest.mark.usefixtures("processes", "training")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A file of 40 images, five batches of 8."""
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, np.random.default_rng(3).random((48, 8, 8)) < 0.3)
    return path


@pytest.fixture
def train(images, tmp_path):
    """The command that trains on them."""
    settings = ("--preset", "paper", "--batch-size", "8", "--shards", "4", "--discriminator-steps", "1")
    return ("train", "--data", images, *settings, "--clusters", "2", "--runs-dir", tmp_path, "--name", "run")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("BGAN_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _newest(folder):
    """The step of the newest checkpoint, and the digest of all state in it."""
    sidecar = json.loads(max((folder / "checkpoints").glob("*.json")).read_text())
    return sidecar["step"], sidecar["sha256"]


def _alone(train, folder, *options, name="run"):
    result = bgan(*train, "--runs-dir", folder, *options, "--name", name)
    assert result.returncode == 0, result.stderr
    return _newest(folder / name)


def test_weights_do_not_depend_on_how_many_processes_train(train, tmp_path):
    expected = _alone(train, tmp_path / "alone", "--epochs", 2)
    for count in (2, 4):
        results = run_ranks(count, *train, "--runs-dir", tmp_path / str(count), "--epochs", 2)
        assert [result.returncode for result in results] == [0] * count, results
        assert "epoch 2/2 step 10/10" in results[0].stderr
        assert "next: bgan export run" in results[0].stderr
        assert all(result.stdout + result.stderr == "" for result in results[1:])
        assert _newest(tmp_path / str(count) / "run") == expected


def test_another_number_of_processes_resumes_a_run(train, tmp_path):
    expected = _alone(train, tmp_path / "unbroken", "--epochs", 3)
    assert all(result.returncode == 0 for result in run_ranks(4, *train, "--epochs", 1))
    (tmp_path / "run").rename(tmp_path / ".run")  # a name that is not given any more, of a folder that one sees
    older = (*train, "--name", ".run", "--epochs", 2)
    first, second = Ranks(older, (*older, "--runs-dir", tmp_path / "elsewhere")).results()
    assert (first.returncode, second.returncode) == (0, 0)
    assert f"resuming at step 5 of {tmp_path / '.run'}" in first.stderr
    (tmp_path / ".run").rename(tmp_path / "run")
    assert _alone(train, tmp_path, "--epochs", 3) == expected


def test_all_processes_refine_the_run_that_the_first_one_reads(train, tmp_path):
    plain = [word for word in train if word not in ("--clusters", "2")]
    _alone((*plain, "--neuron", "real"), tmp_path, "--epochs", 1, name="base")
    refine = (*plain, "--refine", "base", "--epochs", 1)
    assert all(result.returncode == 0 for result in run_ranks(2, *refine))
    (tmp_path / "run").rename(tmp_path / "of-two")
    assert _alone(refine, tmp_path) == _newest(tmp_path / "of-two")


def _refused(results, code=1):
    """The one line that the first of several processes says, where all of them end."""
    first, *others = results
    assert [result.returncode for result in others] == [code] * len(others)
    assert all(result.stdout + result.stderr == "" for result in others)
    return error_line(first, code)


def test_processes_of_other_settings_or_images_are_named(train, images, tmp_path):
    line = _refused(Ranks(train, (*train, "--seed", 1, "--epochs", 9)).results())
    assert "process 1 has other settings than process 0 (epochs 20 -> 9, seed 0 -> 1); start all of them" in line
    assert not (tmp_path / "run").exists()

    plain = [word for word in train if word not in ("--clusters", "2")]
    assert "(clusters 2 -> None, conditional True -> False)" in _refused(Ranks(train, plain).results())
    assert "(clusters None -> 2, conditional False -> True)" in _refused(Ranks(plain, train).results())

    line = _refused(Ranks(train, ({"OMP_NUM_THREADS": 2}, *train)).results())
    assert "other settings than process 0 (OMP_NUM_THREADS 1 -> 2)" in line

    other = tmp_path / "others.npy"
    np.save(other, 1 - np.load(images))
    line = _refused(Ranks(train, (*train, "--data", other)).results())
    assert "process 1 reads other images than process 0; give all machines the same files" in line


def test_what_is_wrong_in_one_process_is_said_once(train, tmp_path):
    line = _refused(Ranks(train, (*train, "--data", tmp_path / "gone.npy")).results())
    assert line.startswith("bgan: process 1: ")
    assert "gone.npy" in line
    line = _refused(run_ranks(2, *train, "--learning-rate", "-1"), 2)
    assert line == "bgan: learning-rate is -1.0; it must be above 0"

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").touch()
    assert "is not the folder of a run" in _refused(run_ranks(2, *train))


def test_processes_that_cannot_share_the_shards_are_refused_with_what_fits(train, tmp_path):
    line = _refused(run_ranks(4, *train, "--shards", 2), 2)
    assert "shards is 2, which 4 processes cannot share; start as many as one of 1, 2, or choose" in line
    assert "3 processes cannot share; start as many as one of 1, 2, 4, or" in _refused(run_ranks(3, *train), 2)
    line = error_line(bgan(*train, "--shards", 2, "--processes", 4), 2)
    assert "shards is 2, which 4 processes cannot share" in line
    line = error_line(bgan(*train, "--shards", 8), 2)
    assert "shards is 8, but a batch of 8 can be in 1, 2, 4; choose one of these" in line
    line = _refused(run_ranks(2, *train, "--processes", 4), 2)
    assert "processes is 4, but 2 were started here; leave out --processes" in line
    assert not (tmp_path / "run").exists()


def test_a_shard_that_diverges_ends_all_processes_before_their_weights_change(train, monkeypatch, tmp_path):
    assert all(result.returncode == 0 for result in run_ranks(2, *train, "--epochs", 1))
    before, batch = _newest(tmp_path / "run"), BatchStream.batch

    def broken(stream, index, shard):
        return batch(stream, index, shard) * (float("nan") if (index, shard) == (7, 3) else 1)

    monkeypatch.setattr(BatchStream, "batch", broken)
    line = _refused(run_ranks(2, *train, "--epochs", 2))
    assert "the discriminator's loss is nan at step 7, epoch 2" in line
    assert line.endswith("; the newest checkpoint is step_00000005.safetensors")
    assert _newest(tmp_path / "run") == before


def test_the_first_process_alone_calls_callbacks_and_one_that_raises_or_stops_ends_all(
    train, monkeypatch, tmp_path
):
    def on_step(callback, step, losses):
        (tmp_path / f"{os.environ['RANK']} at {step}").touch()
        if step == 10:
            raise error

    monkeypatch.setattr(TensorBoard, "on_step", on_step)
    for error in (ValueError("no"), StopTraining()):
        results = run_ranks(2, *train, "--epochs", 4)
        if isinstance(error, ValueError):
            line = _refused(results)
            assert "the callback TensorBoard.on_step raised ValueError: no; stopped and saved at step 10;" in line
            shutil.rmtree(tmp_path / "run" / "checkpoints")
        else:
            assert [result.returncode for result in results] == [0, 0], results
        assert sorted(path.name for path in tmp_path.glob("* at *")) == ["0 at 10", "0 at 5"]
    monkeypatch.undo()
    assert _newest(tmp_path / "run") == _alone(train, tmp_path / "alone", "--epochs", 2)


def test_a_signal_to_one_process_saves_and_ends_all(train, tmp_path):
    ranks = Ranks(*[(*train, "--epochs", 100_000)] * 2)
    eventually((tmp_path / "run" / "samples" / "step_00000005.png").exists)
    os.kill(ranks.processes[1].pid, signal.SIGTERM)
    line = _refused(ranks.results(), 128 + signal.SIGTERM)
    step, _ = found = _newest(tmp_path / "run")
    assert f"SIGTERM: stopped and saved at step {step}; the same command resumes it" in line
    assert found


def test_a_process_that_is_killed_ends_the_others_with_a_line_and_the_same_command_goes_on(train, tmp_path):
    ranks = Ranks(*[(*train, "--epochs", 100_000)] * 2)
    eventually((tmp_path / "run" / "samples" / "step_00000010.png").exists)
    ranks.processes[1].kill()
    first, second = ranks.results()
    assert second is None
    line = error_line(first)
    step, _ = _newest(tmp_path / "run")
    assert "another process of this training has ended; the same command resumes" in line
    assert line.endswith(f"; the newest checkpoint is step_{step:08d}.safetensors")
    epochs = step // 5 + 1
    assert all(result.returncode == 0 for result in run_ranks(2, *train, "--epochs", epochs))
    assert _newest(tmp_path / "run") == _alone(train, tmp_path / "unbroken", "--epochs", epochs)
