"""`bgan reproduce --ray`: the trainings of a reproduction on the nodes of a real Ray cluster."""

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.kit.cli import BGAN
from tests.kit.ray_cluster import ray_cluster
from tests.kit.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("processes", "training"), pytest.mark.timeout(600)]
ARGUMENTS = (
    *("reproduce", "--dataset", "digits", "--experiment", "I", "--preset", "paper", "--count", "64"),
    *("--epochs", 400),
)
# Without what comes after the trainings.
_RUN_JOBS = """if True:
    import sys
    from pathlib import Path
    from rich.console import Console
    from bgan.trainer.config.training import TrainingConfig
    from bgan.trainer.reports.reproduction.jobs import Job, run_jobs

    preset = {"preset": "paper", "dataset": "digits", "epochs": 1}
    configs = [TrainingConfig.resolve(**preset, neuron="dbn", seed=seed) for seed in (0, 1)]
    folder, address = Path(sys.argv[1]), sys.argv[2] or None
    names = [f"seed{config.run.seed}" for config in configs]
    jobs = [Job(each, folder / name, folder.with_name("logs") / name) for each, name in zip(configs, names)]
    jobs.append(Job(configs[0], folder / "bad/name", folder.with_name("logs") / "bad"))
    print(run_jobs(jobs, 2, Console(stderr=True), ray=address))
"""


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster(2) as found:
        yield found


def _weights(runs):
    """The trained weights of each run."""
    return {str(path.relative_to(runs)): path.read_bytes() for path in runs.glob("*/checkpoints/*.safetensors")}


def test_runs_are_those_of_one_machine(cluster, tmp_path):
    said = {}
    for name, address in (("here", ""), ("there", cluster.address)):
        folder = tmp_path / name
        folder.mkdir()
        command = [sys.executable, "-c", _RUN_JOBS, "runs", address]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        assert "[3/3]" in result.stderr
        said[name] = result.stdout
    assert said["there"] == said["here"]
    here, there = _weights(tmp_path / "here/runs"), _weights(tmp_path / "there/runs")
    assert len(here) >= 2
    assert there == here
    assert not list((tmp_path / "there").rglob("*.seen"))


def test_a_signal_saves_the_trainings_for_the_same_command_to_resume(cluster, tmp_path, cache_environment):
    output = tmp_path / "out"
    command = [str(each) for each in (BGAN, *ARGUMENTS, "--output", output, "--ray", cluster.address)]

    def logs():
        return [path.read_text() for path in output.glob("logs/*")]

    for until in (r"step \d+/", "resuming at step [1-9]"):
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env={**os.environ, **cache_environment}
        ) as process:
            eventually(lambda until=until: len([log for log in logs() if re.search(until, log)]) == 2, seconds=200)
            process.send_signal(signal.SIGTERM)
            said = process.stderr.read()
        assert process.returncode == 128 + signal.SIGTERM, said
        assert "SIGTERM: stopped, and the running trainings were saved; the same command resumes them" in said
        assert [
            re.search(r"SIGTERM: stopped and saved at step \d+; the same", log) is not None for log in logs()
        ] == [
            True,
            True,
        ]
        assert len(_weights(output / "runs")) >= 2
