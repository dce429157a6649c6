"""Classes of images without labels: k-means on their principal components.

The clusters of a set follow from its images, their number and the seed, on one machine: numerical libraries are
held to one thread, since sums of several come in any order.
"""

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..common.errors import DataError
from .dataset import BinaryDataset

_COMPONENTS = 50
_FITTED_VALUES = 2**28
"""Pixels that are fitted, 1 GiB of them as float32: all of MNIST, evenly spaced images of larger sets."""


def cluster_labels(dataset: BinaryDataset, count: int, *, seed: int) -> Tensor:
    """The cluster of each image, int64 [N] of 0 to `count` - 1; none is empty.

    Raises DataError for more than one cluster for every two images, and where fewer images than clusters differ.
    """
    from threadpoolctl import threadpool_limits

    if 2 * count > len(dataset):
        raise DataError(
            f"{dataset.name} has {len(dataset)} images, too few to learn from of each of {count} clusters; choose "
            f"--clusters of at most {len(dataset) // 2}"
        )
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of images that are alike, which are counted below
        model = _fitted(dataset, count, seed)
        labels = np.concatenate([model.predict(_rows(images)) for images in dataset.chunks()])
    found = len(np.unique(labels))
    if found < count:
        raise DataError(
            f"the images of {dataset.name} are too alike for {count} clusters and fall into {found}; choose "
            f"{f'--clusters of at most {found}' if found > 1 else 'other images'}"
        )
    return torch.from_numpy(labels.astype(np.int64))


def cluster_names(count: int) -> tuple[str, ...]:
    """What the clusters are called, by label: no numbers alone, which on the command line are labels."""
    return tuple(f"cluster {number}" for number in range(count))


def _fitted(dataset: BinaryDataset, count: int, seed: int) -> Any:
    """Principal components and k-means of all images, or of some of many, evenly spaced."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline

    pixels = math.prod(dataset.image_shape)
    fitted = min(len(dataset), max(2 * count, _FITTED_VALUES // pixels))
    rows = _rows(dataset.images[torch.arange(fitted) * len(dataset) // fitted].numpy())
    components = min(_COMPONENTS, *rows.shape)
    random = np.random.RandomState(seed % 2**32)
    steps = PCA(components, random_state=random), KMeans(count, n_init="auto", random_state=random)
    return make_pipeline(*steps).fit(rows)


def _rows(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Images [N, C, H, W] as rows [N, pixels]."""
    return images.reshape(len(images), -1).astype(np.float32)
