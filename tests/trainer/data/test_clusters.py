"""Classes by k-means where there are no labels."""

import numpy as np
import pytest
import torch

from bgan.trainer.common.errors import DataError
from bgan.trainer.config.images import DatasetSpec
from bgan.trainer.data import clusters
from bgan.trainer.data.catalog import open_dataset
from bgan.trainer.data.clusters import cluster_labels, cluster_names
from bgan.trainer.data.dataset import BinaryDataset


def _dataset(count=300, noise=0.1):
    """Images of three kinds, twice as many of the first, on in one half, with some pixels flipped; no labels."""
    kinds = torch.tensor([0, 1, 0, 2])[torch.arange(count) % 4]
    images = torch.zeros(count, 1, 8, 12, dtype=torch.uint8)
    images[kinds == 0, :, :4] = 1
    images[kinds == 1, :, 4:] = 1
    images[kinds == 2, :, :, :6] = 1
    flips = torch.rand(images.shape, generator=torch.Generator().manual_seed(4)) < noise
    return BinaryDataset("kinds", images ^ flips.to(torch.uint8), None), kinds


def _same_parts(labels, kinds):
    return len(set(zip(labels.tolist(), kinds.tolist(), strict=True))) == len(set(kinds.tolist())) == 3


@pytest.mark.parametrize("fitted_values", [clusters._FITTED_VALUES, 96 * 40])
def test_clusters_are_the_kinds_of_images_also_where_some_alone_are_fitted(fitted_values, monkeypatch):
    monkeypatch.setattr(clusters, "_FITTED_VALUES", fitted_values)
    dataset, kinds = _dataset()
    labels = cluster_labels(dataset, 3, seed=1)
    assert labels.dtype == torch.int64
    assert _same_parts(labels, kinds)


def test_the_same_seed_gives_the_same_clusters_and_another_gives_others():
    dataset, _ = _dataset(noise=0.4)
    labels = cluster_labels(dataset, 20, seed=2**62 + 1)
    assert torch.equal(cluster_labels(dataset, 20, seed=2**62 + 1), labels)
    assert not torch.equal(cluster_labels(dataset, 20, seed=3), labels)


def test_packed_images_have_the_clusters_of_those_in_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("BGAN_CACHE_DIR", str(tmp_path / "cache"))
    dataset, _ = _dataset(noise=0.3)
    np.save(tmp_path / "kinds.npy", dataset.images.numpy()[:, 0])
    packed = open_dataset(DatasetSpec(dataset="kinds", path=str(tmp_path / "kinds.npy")), split="all")
    assert torch.equal(cluster_labels(packed, 10, seed=0), cluster_labels(dataset, 10, seed=0))


def test_names_are_not_numbers_which_the_command_line_takes_for_labels():
    assert cluster_names(3) == ("cluster 0", "cluster 1", "cluster 2")


@pytest.mark.parametrize(
    ("count", "noise", "at_most", "says"),
    [
        (301, 0.1, 150, "kinds has 300 images, too few to learn from of each of 301 clusters"),
        (151, 0.1, 150, "kinds has 300 images, too few to learn from of each of 151 clusters"),
        (5, 0.0, 3, "the images of kinds are too alike for 5 clusters and fall into 3"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_clusters_that_images_cannot_fill_are_refused_with_how_many_they_can(count, noise, at_most, says):
    dataset, _ = _dataset(noise=noise)
    with pytest.raises(DataError, match=f"{says}; choose --clusters of at most {at_most}"):
        cluster_labels(dataset, count, seed=0)
    assert len(cluster_labels(dataset, at_most, seed=0)) == 300


@pytest.mark.filterwarnings("error")
def test_images_that_are_all_the_same_are_refused():
    black = BinaryDataset("black", torch.zeros(30, 1, 4, 4, dtype=torch.uint8), None)
    with pytest.raises(DataError, match="too alike for 2 clusters and fall into 1; choose other images"):
        cluster_labels(black, 2, seed=0)
