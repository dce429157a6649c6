"""A run that refines another, from the command line to a server."""

import shutil

import numpy as np
import torch

from bgan.clients import SamplingClient
from bgan.trainer.exporting.stream_noise import first_noise
from tests.kit.cli import bgan
from tests.kit.servers import server
from tests.kit.training import train_on_noise


def test_its_file_is_served(tmp_path):
    train_on_noise(tmp_path / "base", neuron="real")
    run = train_on_noise(tmp_path / "refined", refine="base", slope_rate=2.0)
    shutil.rmtree(tmp_path / "base")
    result = bgan("export", "refined", "--runs-dir", tmp_path, "--models", tmp_path / "models")
    assert result.returncode == 0, result.stderr
    with server(tmp_path / "models") as process, SamplingClient(process.target) as client:
        (info,) = client.list_models()
        assert (info.name, info.network) == ("refined", "mlp")
        batches = list(client.sample_binary_images(image_count=96, seed=0))
    images = np.concatenate([batch.images for batch in batches])
    noise = first_noise(96, 8, (1, 8, 12), stochastic=False, class_counts=())
    latents = torch.from_numpy(np.concatenate([part["latents"] for part in noise]))
    with torch.no_grad():
        logits = run.trained_generator()(latents)
    assert ((logits > 0).numpy() == images)[(logits.abs() > 1e-4).numpy()].all()
