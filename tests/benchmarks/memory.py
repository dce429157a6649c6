"""Resident memory of training and of the server, as Linux counts it."""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from bgan.clients import SamplingClient
from tests.conftest import ROOT
from tests.kit.cli import BGAN
from tests.kit.models import make_model
from tests.kit.servers import server

from .measure import Figure
from .processes import peak_mib, resident_mib, running

_TRAINING_SECONDS = 25
_STREAMS = 1000
_SETTLE_SECONDS = 2
_WATCH_SECONDS = 10


def measure():
    """Training on MNIST, where it is, and servers: busy, with idle streams, with a slow reader."""
    yield from _training()
    with tempfile.TemporaryDirectory() as models:
        make_model(Path(models), "mlp", neuron="sbn")
        yield _busy(models)
    with tempfile.TemporaryDirectory() as models:
        make_model(Path(models), "mlp")
        yield _idle_streams(models)
        yield _slow_reader(models)


def _training():
    data = Path(os.environ.get("BGAN_DATA_DIR") or ROOT.parent / "shared" / "mnist")
    name, bound = "training on MNIST, peak resident", "under 1500"
    if not (data / "MNIST" / "raw").is_dir():
        yield Figure(name, None, "MiB", "skipped: MNIST is not here; name its folder with BGAN_DATA_DIR")
        return
    with tempfile.TemporaryDirectory() as runs:
        command = [str(BGAN), "train", "--dataset", "mnist", "--data-dir", str(data), "--runs-dir", runs]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(_TRAINING_SECONDS)
        peak = peak_mib(process.pid)
        process.send_signal(signal.SIGTERM)
        process.wait()
    yield Figure(name, peak, "MiB", bound)


def _busy(models):
    with server(models) as process, SamplingClient(process.target) as client:
        for _ in client.sample_binary_images(image_count=200_000, seed=1):
            pass
        return Figure(
            "server after 200,000 images, peak resident", peak_mib(process.process.pid), "MiB", "under 250"
        )


def _idle_streams(models):
    with server(models, "--max-streams", _STREAMS + 100) as process:
        idle = resident_mib(process.process.pid)
        with running("idle", process.target, "--streams", _STREAMS):
            most = _most_resident_mib(process.process.pid)
    return Figure(f"{_STREAMS} open streams that nobody reads", most - idle, "MiB over idle", "under 200")


def _slow_reader(models):
    with server(models) as process, running("idle", process.target, "--read-slowly"):
        time.sleep(_SETTLE_SECONDS)
        before = resident_mib(process.process.pid)
        most = _most_resident_mib(process.process.pid)
    return Figure("a client that reads a message a second", most - before, "MiB more", "no growth")


def _most_resident_mib(pid):
    """The most of some seconds: memory that is full stays full, but for what waits to be sent."""
    end, most = time.monotonic() + _WATCH_SECONDS, 0.0
    while time.monotonic() < end:
        most = max(most, resident_mib(pid))
        time.sleep(0.2)
    return most
