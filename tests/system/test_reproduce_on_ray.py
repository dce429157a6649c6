"""`bgan reproduce --ray`: the trainings of a reproduction on the nodes of a real Ray cluster."""

import json
import os
import signal
import subprocess

import pytest

from tests.kit.cli import BGAN, bgan, bgan_process
from tests.kit.ray_cluster import ray_cluster
from tests.kit.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("processes", "training")]
ARGUMENTS = (
    *("reproduce", "--dataset", "digits", "--experiment", "I", "--preset", "paper"),
    *("--count", "64"),
)


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster(2) as found:
        yield found


def _weights(folder):
    """The trained weights of each run."""
    return {path.parent.parent.name: path.read_bytes() for path in folder.glob("runs/*/checkpoints/*.safetensors")}


def test_runs_are_those_of_one_machine(cluster, tmp_path, cache_environment):
    local = bgan(*ARGUMENTS, "--epochs", 1, "--jobs", 2, "--output", tmp_path / "here", env=cache_environment)
    assert local.returncode == 0, local.stderr
    options = ("--epochs", 1, "--output", "there", "--ray", cluster.address)
    result = bgan_process(*ARGUMENTS, *options, cwd=tmp_path, env=cache_environment)
    assert result.returncode == 0, result.stderr
    assert "[2/2]" in result.stderr
    here, there = _weights(tmp_path / "here"), _weights(tmp_path / "there")
    assert len(here) == 2
    assert there == here
    assert not list((tmp_path / "there/runs").glob(".*"))


def test_a_signal_saves_the_trainings_for_the_same_command_to_resume(cluster, tmp_path, cache_environment):
    command = [BGAN, *ARGUMENTS, "--epochs", "40", "--output", tmp_path / "out", "--ray", cluster.address]
    environment = {**os.environ, **cache_environment}
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment) as process:
        eventually(lambda: len(list(tmp_path.glob("out/runs/*/metrics.jsonl"))) == 2, seconds=120)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM
    assert "SIGTERM: stopped, and the running trainings were saved; the same command resumes them" in said
    for log in (tmp_path / "out/logs").iterdir():
        assert "bgan: " in log.read_text().splitlines()[-1]
    saved = _weights(tmp_path / "out")
    assert len(saved) == 2
    result = bgan_process(*command[1:], env=cache_environment)
    assert result.returncode == 0, result.stderr
    for run in (tmp_path / "out/runs").glob("[!.]*"):
        assert json.loads((run / "report.json").read_text())["epochs"] == 40
