"""Trainings of a few steps from Python."""

import json

import numpy as np

from bgan.trainer import BinaryDataset, TrainingConfig, train

SETTINGS = {"network": "mlp", "batch_size": 16, "latent_size": 8, "discriminator_steps": 1, "device": "cpu"}


def noise_images(count=48):
    return BinaryDataset.from_arrays(np.random.default_rng(3).random((count, 8, 12)) < 0.4, name="noise")


def train_on_noise(folder, *callbacks, epochs=2, **settings):
    """Three steps an epoch."""
    config = TrainingConfig.resolve(**SETTINGS | {"epochs": epochs} | settings)
    return train(config, noise_images(), folder=folder, callbacks=callbacks)


def newest_digest(run):
    """The step of the newest checkpoint, and the digest of all state in it."""
    sidecar = json.loads(max(run.checkpoints.glob("*.json")).read_text())
    return sidecar["step"], sidecar["sha256"]
