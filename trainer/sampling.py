"""Drawing samples from a run's newest checkpoint, or from a model file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from .checkpoint import trained_generator
from .errors import ConfigError
from .model_file import ModelFile
from .randomness import random_stream
from .run import Run, trained_checkpoint
from .samples import Samples, chunks


@torch.no_grad()
def sample_run(
    run: Run,
    count: int,
    *,
    seed: int = 0,
    binarization: str | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> Samples:
    """`count` images of the run's newest checkpoint, as an exported generator would make them.

    Those of a generator of classes are of all classes alike. `binarization` is "threshold" or "bernoulli"; None
    is that of the run's neurons, threshold for the real-valued ones. Raises RunError where there is no checkpoint.
    """
    config = run.config()
    if binarization not in {None, "threshold", "bernoulli"}:
        raise ConfigError(f"binarization is {binarization!r}; choose one of threshold, bernoulli")
    checkpoint = trained_checkpoint(run, warn)
    generator = trained_generator(config, checkpoint)
    bernoulli = binarization == "bernoulli" or (binarization is None and config.neuron == "sbn")
    random = random_stream(seed, "evaluation")
    images, probabilities, labels = [], [], []
    for rows in chunks(count):
        latents = torch.randn(rows, config.latent_size, generator=random)
        chunk_labels = None
        if generator.class_count:
            chunk_labels = torch.randint(generator.class_count, (rows,), generator=random)
            labels.append(chunk_labels.numpy())
        chunk = torch.sigmoid(checkpoint.progress.slope * generator(latents, chunk_labels))
        threshold = torch.rand(chunk.shape, generator=random) if bernoulli else 0.5
        probabilities.append(chunk.numpy())
        images.append((chunk > threshold).numpy())
    name = run.name if binarization is None else f"{run.name}, {binarization}"
    return Samples(
        name,
        np.concatenate(images).astype(np.uint8),
        np.concatenate(probabilities),
        np.concatenate(labels) if labels else None,
    )


def sample_model(model: ModelFile, count: int, *, seed: int = 0) -> Samples:
    """`count` images, of all classes alike where it has any, drawn with numpy's generator of that seed."""
    random = np.random.default_rng(seed)
    images, probabilities, labels = [], [], []
    for rows in chunks(count):
        latents = random.standard_normal((rows, model.manifest.latent_size), np.float32)
        chunk_labels = None
        if model.class_count:
            chunk_labels = random.integers(model.class_count, size=rows)
            labels.append(chunk_labels)
        outputs = model.run(latents, lambda shape: random.random(shape, np.float32), chunk_labels)
        images.append(outputs[0])
        probabilities.append(outputs[1])
    return Samples(
        model.manifest.name,
        np.concatenate(images),
        np.concatenate(probabilities),
        np.concatenate(labels) if labels else None,
    )
