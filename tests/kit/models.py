"""Runs of a few steps, and the model files of them. Everything is real."""

import json
import tempfile
from pathlib import Path


def make_run(folder, *, shape=(1, 28, 28), steps=3, images=None, classes=("0",), labels=None, **settings):
    """A run of a few iterations on random images, with one checkpoint; of these classes with `conditional`.

    `labels`: the class of each image; by default they take turns.
    """
    import torch

    from bgan.trainer.common.image_shape import ImageShape
    from bgan.trainer.config.training import TrainingConfig
    from bgan.trainer.data.dataset import BinaryDataset
    from bgan.trainer.training.checkpoint import CheckpointMeta, save_checkpoint
    from bgan.trainer.training.run import open_run
    from bgan.trainer.training.trainer import Trainer

    config = TrainingConfig.resolve(**{"dataset": "digits", "batch_size": 8, "discriminator_steps": 1, **settings})
    if images is None:
        generator = torch.Generator().manual_seed(5)
        images = (torch.rand(40, *shape, generator=generator) < 0.3).to(torch.uint8)
    labels = torch.arange(len(images)) % len(classes) if labels is None else torch.tensor(labels)
    dataset = BinaryDataset("random", images, labels, tuple(classes))
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
        class_counts=trainer.class_counts,
    )
    save_checkpoint(run.checkpoints, trainer.state_dict(), progress)
    return run


def make_model(folder, name, *, arithmetic="float", **settings):
    """An exported model file of a small run, `folder/name.onnx`."""
    from bgan.trainer.exporting.exporter import export_run

    with tempfile.TemporaryDirectory() as runs:
        return export_run(make_run(Path(runs) / name, **settings), folder, arithmetic=arithmetic).path


def read_metrics(run_folder):
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
