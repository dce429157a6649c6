"""Peak resident memory of training and of the server, as Linux counts it."""

import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from bgan.clients import SamplingClient
from tests.conftest import ROOT
from tests.support import BGAN, make_model, server

from .measure import Figure

_TRAINING_SECONDS = 25


def measure():
    """Training on MNIST, where it is, and a server of one model that takes uniforms."""
    return [*_training(), _serving()]


def _training():
    data = Path(os.environ.get("BGAN_DATA_DIR") or ROOT.parent / "shared" / "mnist")
    if not (data / "MNIST" / "raw").is_dir():
        print("memory of training: MNIST is not here; name its folder with BGAN_DATA_DIR")
        return
    with tempfile.TemporaryDirectory() as runs:
        command = [str(BGAN), "train", "--dataset", "mnist", "--data-dir", str(data), "--runs-dir", runs]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(_TRAINING_SECONDS)
        peak = _peak_mib(process.pid)
        process.send_signal(signal.SIGTERM)
        process.wait()
    yield Figure("training on MNIST, peak resident", peak, "MiB", "under 1500")


def _serving():
    with tempfile.TemporaryDirectory() as models:
        make_model(Path(models), "mlp", neuron="sbn")
        with server(models) as process, SamplingClient(process.target) as client:
            for _ in client.sample_binary_images(image_count=200_000, seed=1):
                pass
            return Figure(
                "server after 200,000 images, peak resident", _peak_mib(process.process.pid), "MiB", "under 250"
            )


def _peak_mib(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024
