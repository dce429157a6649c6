"""What a run is trained on: its images, and the clusters that are their classes where it has such.

The run's folder keeps its clusters, so a run is resumed with the classes that it began with, on any machine.
"""

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..common.files import write_atomically
from ..common.rng import derived_seed
from ..config.images import DatasetSpec
from ..config.training import TrainingConfig
from ..data.catalog import open_dataset
from ..data.clusters import cluster_labels, cluster_names
from ..data.dataset import BinaryDataset
from ..data.packed import ProgressCallback
from .run import Run


def open_training_set(
    config: TrainingConfig,
    run: Run | None = None,
    *,
    dataset: BinaryDataset | None = None,
    progress: ProgressCallback = lambda done, total: None,
    warn: Callable[[str], None] = lambda text: None,
) -> BinaryDataset:
    """The images of these settings; where they have clusters, those of the run, or new ones, are the labels.

    A `dataset` that is given stands in place of what the settings name. `warn` is called with a line where the
    run's clusters are damaged. Raises DataError where the images cannot be read, or not be divided into so many
    clusters.
    """
    if dataset is None:
        dataset = open_dataset(config.data, split=config.optimization.training_split, progress=progress)
    count = config.networks.clusters
    if count is None:
        return dataset
    labels = None if run is None else _kept_clusters(run, len(dataset), count, warn)
    if labels is None:
        labels = cluster_labels(dataset, count, seed=derived_seed(config.run.seed, "clusters"))
    return dataclasses.replace(dataset, labels=labels, classes=cluster_names(count))


def with_dataset(config: TrainingConfig, dataset: BinaryDataset) -> TrainingConfig:
    """The settings of a training on this data set: its name there if it has one, else a digest of its images."""
    if dataset.spec is not None and dataset.split in {"train", "all"}:
        split: Any = dataset.split
        optimization = dataclasses.replace(config.optimization, training_split=split)
        return dataclasses.replace(config, data=dataset.spec, optimization=optimization)
    spec = DatasetSpec(dataset=dataset.name, digest=dataset.content_digest())
    return dataclasses.replace(config, data=spec)


def keep_clusters(run: Run, dataset: BinaryDataset) -> None:
    """Write the clusters of a training set to the run's folder. Raises OSError."""
    assert dataset.labels is not None  # those of clusters
    content = io.BytesIO()
    np.save(content, dataset.labels.numpy().astype(np.uint16))
    write_atomically(run.clusters_file, content.getvalue())


def _kept_clusters(run: Run, images: int, count: int, warn: Callable[[str], None]) -> torch.Tensor | None:
    """The clusters that a run's folder keeps; None where it has none, or those of other settings."""
    try:
        labels = np.load(run.clusters_file, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        warn(f"{run.clusters_file} cannot be read ({error}); its clusters are computed again")
        return None
    if labels.shape != (images,) or labels.max() >= count:
        return None
    return torch.from_numpy(labels.astype(np.int64))
