"""Small generators, model files and server processes for the tests. Everything is real."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

BGAN = Path(sys.executable).with_name("bgan")
_START_SECONDS = 150


def bgan(*arguments, cwd=None, env=None, **options):
    """Run the command line in a process of its own."""
    return subprocess.run(
        [str(BGAN), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        **options,
    )


def make_run(folder, *, shape=(1, 28, 28), steps=3, images=None, classes=("0",), **settings):
    """A run of a few iterations on random images, with one checkpoint; of these classes with `conditional`."""
    import torch

    from bgan.trainer.common.image_shape import ImageShape
    from bgan.trainer.config.training import TrainingConfig
    from bgan.trainer.data.dataset import BinaryDataset
    from bgan.trainer.training.checkpoint import CheckpointMeta, save_checkpoint
    from bgan.trainer.training.run import open_run
    from bgan.trainer.training.trainer import Trainer

    config = TrainingConfig(**{"dataset": "digits", "batch_size": 8, "discriminator_steps": 1, **settings})
    if images is None:
        generator = torch.Generator().manual_seed(5)
        images = (torch.rand(40, *shape, generator=generator) < 0.3).to(torch.uint8)
    dataset = BinaryDataset("random", images, torch.arange(len(images)) % len(classes), tuple(classes))
    run = open_run(folder, config)
    trainer = Trainer(config, dataset, torch.device("cpu"))
    for _ in range(steps):
        trainer.train_step()
    progress = CheckpointMeta(
        step=trainer.step,
        epoch=trainer.epoch,
        slope=trainer.current_slope,
        image_shape=ImageShape(*shape),
        seconds=1.0,
        classes=trainer.classes,
    )
    save_checkpoint(run.checkpoints, trainer.state_dict(), progress)
    return run


def make_model(folder, name, **settings):
    """An exported model file of a small run, `folder/name.onnx`."""
    from bgan.trainer.export.exporter import export_run

    with tempfile.TemporaryDirectory() as runs:
        return export_run(make_run(Path(runs) / name, **settings), folder).path


class ServerProcess:
    """A `bgan serve` of its own, on a free port; of the models that it picks itself where `models` is None.

    `program`: a command that takes its place.
    """

    def __init__(self, models, *options, port=0, env=None, cwd=None, program=(BGAN, "serve")):
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115 - as long as the server
        named = () if models is None else ("--models", str(models))
        self.process = subprocess.Popen(
            [*map(str, program), *named, "--port", str(port), *map(str, options)],
            stderr=self.log,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
        try:
            self.port = self._wait_for_port()
        except BaseException:
            self.stop(signal.SIGKILL)
            raise
        self.target = f"localhost:{self.port}"

    def _wait_for_port(self):
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            found = re.search(r"serving on .*:(\d+)", self.output())
            if found:
                return int(found[1])
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.output()}")
            time.sleep(0.05)
        raise AssertionError(f"the server did not start:\n{self.output()}")

    def output(self):
        return Path(self.log.name).read_text()

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(30)
        self.log.close()
        return code

    def resident_mib(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")


@contextmanager
def server(models, *options, **arguments):
    process = ServerProcess(models, *options, **arguments)
    try:
        yield process
    finally:
        process.stop(signal.SIGKILL)


def eventually(condition, *, seconds=60):
    """Wait until a condition holds; fails where it does not within the time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def free_port():
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def read_metrics(run_folder):
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
