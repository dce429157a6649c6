"""The job of a training: two agents of torchrun, of which one is lost as a pod is, with all of its processes."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.cli import bgan_process
from tests.kit.servers import free_port
from tests.kit.waiting import eventually
from tests.system.deploy.files import KUBERNETES, rendered

OPTIONS = ("--dataset=digits", "--preset=paper", "--network=mlp", "--epochs=2", "--name=job")
CHECKPOINTS = Path("runs", "job", "checkpoints")
FIRST, LAST = "step_00000024.safetensors", "step_00000048.safetensors"


class Pod:
    """An agent of torchrun with the command line and the variables of the job, on an address of the loopback."""

    def __init__(self, folder, container, address, endpoint, *, is_host):
        arguments = [one for one in container["args"] if not one.startswith("--rdzv-endpoint")]
        meeting = [f"--rdzv-endpoint={endpoint}", f"--rdzv-conf=is_host={is_host}", f"--local-addr={address}"]
        command = [sys.executable, "-m", "torch.distributed.run", *meeting, *arguments, *OPTIONS]
        variables = {one["name"]: one["value"] for one in container["env"]}
        self._start = lambda: subprocess.Popen(command, cwd=folder, env={**os.environ, **variables})
        self.process = self._start()

    def kill(self):
        """End it and all that it started at once, as with its node."""
        for pid in (self.process.pid, *_descendants(self.process.pid)):
            os.kill(pid, signal.SIGKILL)
        self.process.wait(60)

    def restart(self):
        self.process = self._start()


def _descendants(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [one for child in map(int, children) for one in (child, *_descendants(child))]


@contextmanager
def job(folder):
    """Both pods of the job, of which the second by start has the first process."""
    (container,) = rendered(KUBERNETES / "training")["Job"]["spec"]["template"]["spec"]["containers"]
    endpoint = f"127.0.0.1:{free_port()}"
    pods = []
    try:
        for address, is_host in (("127.0.0.2", 1), ("127.0.0.1", 0)):
            pods.append(Pod(folder, container, address, endpoint, is_host=is_host))
        yield pods
    finally:
        for pod in pods:
            if pod.process.poll() is None:
                pod.kill()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_training_that_loses_the_pod_of_its_first_process_ends_with_the_weights_of_one_that_does_not(tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    result = bgan_process("train", "--shards=4", *OPTIONS, cwd=alone, env={"OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr
    with job(tmp_path) as (host, first):
        eventually((tmp_path / CHECKPOINTS / FIRST).exists, seconds=200)
        first.kill()
        assert not (tmp_path / CHECKPOINTS / LAST).exists()
        first.restart()
        assert [host.process.wait(200), first.process.wait(200)] == [0, 0]
    assert (tmp_path / CHECKPOINTS / LAST).read_bytes() == (alone / CHECKPOINTS / LAST).read_bytes()
