"""Training by torchrun and by `bgan train --processes`: real launchers, which start and end processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.kit.cli import BGAN
from tests.kit.waiting import eventually

pytestmark = pytest.mark.long
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SETTINGS = ("--preset", "paper", "--batch-size", "8", "--shards", "2", "--discriminator-steps", "1")


@pytest.fixture
def start(tmp_path):
    """Starts a launcher of a training of 40 images, five steps an epoch."""
    np.save(tmp_path / "images.npy", np.random.default_rng(3).random((48, 8, 8)) < 0.3)
    started = []

    def start(launcher, *options, name="run"):
        command = [*launcher, "train", "--data", tmp_path / "images.npy", *SETTINGS]
        command += ["--runs-dir", tmp_path, "--name", name, *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "BGAN_CACHE_DIR": str(tmp_path / "cache")}
        started.append(
            subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment)
        )
        return started[-1]

    yield start
    for process in started:
        process.terminate()  # an agent ends its processes with it
        process.communicate()


def _newest(run):
    sidecar = json.loads(max((run / "checkpoints").glob("*.json")).read_text())
    return sidecar["step"], sidecar["sha256"]


def _children(process):
    """The processes that another one has started, with the environment of each."""
    found = {}
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        lines = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        found[int(pid)] = dict(line.decode().split("=", 1) for line in lines if b"=" in line)
    return found


def test_all_launchers_give_the_weights_of_one_process(start, tmp_path):
    launchers = {
        "alone": (BGAN,),
        "torchrun": (*TORCHRUN, "-m", "bgan"),
        "script": (*TORCHRUN, "--no-python", BGAN),
    }
    for name, launcher in launchers.items():
        process = start(launcher, "--epochs", 2, name=name)
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    process = start((BGAN,), "--epochs", 2, "--processes", 2, name="processes")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert "W" not in [line[:1] for line in errors.splitlines()]  # nothing of torchrun's log
    assert len({_newest(tmp_path / name) for name in (*launchers, "processes")}) == 1


def test_a_killed_process_is_started_again_and_nothing_is_lost(start, tmp_path):
    process = start((*TORCHRUN, "--max-restarts", "3", "-m", "bgan"), "--epochs", 40)
    eventually((tmp_path / "run" / "samples" / "step_00000010.png").exists)
    (killed,) = [pid for pid, environment in _children(process).items() if environment.get("RANK") == "1"]
    os.kill(killed, signal.SIGKILL)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert errors.count("resuming at step") == 1
    alone = start((BGAN,), "--epochs", 40, name="alone")
    alone.communicate(timeout=200)
    assert _newest(tmp_path / "run") == _newest(tmp_path / "alone")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_command_of_several_processes_saves_and_is_one_line(start, tmp_path, number):
    process = start((BGAN,), "--epochs", 100_000, "--processes", 2)
    eventually((tmp_path / "run" / "samples" / "step_00000005.png").exists)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    step, _ = _newest(tmp_path / "run")
    (line,) = [line for line in errors.splitlines() if not line.startswith(("images ", "epoch "))]
    assert line == f"bgan: {number.name}: stopped and saved at step {step}; the same command resumes it"
