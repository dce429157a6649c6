"""Reading a batch from a packed set on disk against a training iteration."""

import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import torch

from bgan.trainer.config.presets import preset_values
from bgan.trainer.config.training import TrainingConfig
from bgan.trainer.data.dataset import BatchStream, BinaryDataset
from bgan.trainer.data.packed import PackedImages
from bgan.trainer.training.trainer import Trainer

from .measure import Figure, in_turns

_IMAGES, _BYTES = 1_000_000, 98


def measure():
    """The modern preset with an MLP, its quickest: one batch of 64 an iteration, from a million images."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.bin"
        random = np.random.default_rng(0)
        path.write_bytes(random.bytes(_IMAGES * _BYTES))
        rows = np.asarray(np.memmap(path, np.uint8, "r", shape=(_IMAGES, _BYTES)))
        yield from _measure(PackedImages(rows, (1, 28, 28), np.arange(len(rows))))


def _measure(images):
    settings = {**preset_values("modern", neuron="dbn", network="mlp"), "network": "mlp"}
    trainer = Trainer(
        TrainingConfig.resolve(**settings), BinaryDataset("random", images, None), torch.device("cpu")
    )
    stream, index = BatchStream(images, batch_size=64, seed=1), count()
    stream.batch(0)  # orders the first pass

    def read():
        stream.batch(next(index))

    in_turns(trainer.train_step, read, rounds=3)
    step, batch = in_turns(trainer.train_step, read, rounds=15, repeats=20)
    yield Figure("training iteration on packed images", 1e3 * step, "ms")
    yield Figure("reading a packed batch", 1e3 * batch, "ms")
    yield Figure("reading / training", batch / step, "ratio", "at most 0.05")
