"""Precision, recall, density and coverage of samples, by the nearest neighbours of feature vectors.

A real image's ball reaches to its k-th nearest real image, a sample's to its k-th nearest sample.
"""

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import GROUPS, Estimate, group_of_rows, jackknife_error, mean_estimate

NEIGHBOURS = 5
_BLOCK_NUMBERS = 5_000_000  # of distances at once: 40 MB
_SPARE = 20  # neighbours kept for those that a left-out group takes


def precision_recall_density_coverage(
    real: NDArray[np.float32], fake: NDArray[np.float32], *, neighbours: int = NEIGHBOURS
) -> dict[str, Estimate]:
    """The four by name, of features [N, D] and [M, D].

    Precision is the share of samples in a real image's ball, recall that of real images in a sample's
    (Kynkaanniemi et al. 2019); density is real balls a sample over k, coverage the share of real balls that hold a
    sample (Naeem et al. 2020). Two sets of one distribution have a density of about 1; the others are at most 1.
    """
    groups = np.sort(group_of_rows(len(fake)))
    x, y = torch.from_numpy(real).double(), torch.from_numpy(fake[np.argsort(group_of_rows(len(fake)))]).double()
    ends = np.searchsorted(groups, np.arange(GROUPS + 1)).tolist()
    real_radii = torch.cat([found[:, -1] for found, _ in _nearest(x, neighbours + 1)])
    fake_radii, radii_without = _fake_radii(y, torch.from_numpy(groups), neighbours)
    balls = torch.zeros(len(y), dtype=torch.float64)  # real ones that each sample is in
    nearest, in_fake, without = [], [], []
    for rows, radii in zip(_blocks(x, y), _blocks(real_radii, y), strict=True):
        distances = _squared_distances(rows, y)
        balls += (distances < radii[:, None]).sum(dim=0)
        nearest.append(_by_group(distances, ends) < radii[:, None])
        in_fake.append((distances < fake_radii).any(dim=1))
        without.append(_covered_without(distances, radii_without, ends))
    is_covered, counts = torch.cat(nearest), balls.numpy()
    left = [is_covered[:, torch.arange(GROUPS) != group].any(dim=1).double().mean() for group in range(GROUPS)]
    recalls = torch.cat(without).double().mean(dim=0)
    return {
        "precision": mean_estimate(counts > 0),
        "recall": Estimate(float(torch.cat(in_fake).double().mean()), jackknife_error(recalls.numpy())),
        "density": mean_estimate(counts / neighbours),
        "coverage": Estimate(float(is_covered.any(dim=1).double().mean()), jackknife_error(np.array(left))),
    }


def _blocks(x: Tensor, others: Tensor) -> tuple[Tensor, ...]:
    """The rows of `x`, as many at once as have few enough distances to others."""
    return torch.split(x, max(1, _BLOCK_NUMBERS // len(others)))


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """[N, M] of rows [N, D] and [M, D]."""
    products = torch.addmm((y * y).sum(dim=1), x, y.t(), alpha=-2)
    return products.add_((x * x).sum(dim=1)[:, None]).clamp_(min=0)


def _nearest(x: Tensor, count: int) -> list[tuple[Tensor, Tensor]]:
    """The least squared distances of each row to the rows, itself included, with their indices, by blocks."""
    count = min(count, len(x))
    blocks = (_squared_distances(rows, x) for rows in _blocks(x, x))
    return [(found.values, found.indices) for found in (block.topk(count, largest=False) for block in blocks)]


def _fake_radii(y: Tensor, groups: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    """The squared radii of the samples [M], and those without each group [G, M]."""
    found = _nearest(y, neighbours + 1 + _SPARE)
    distances, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    at = min(neighbours, distances.shape[1] - 1)
    without = []
    for group in range(GROUPS):
        kept = (groups[indices] != group).cumsum(dim=1)
        place = (kept <= neighbours).sum(dim=1).clamp(max=distances.shape[1] - 1)
        without.append(distances.gather(1, place[:, None])[:, 0])
    return distances[:, at], torch.stack(without)


def _by_group(distances: Tensor, ends: list[int]) -> Tensor:
    """The least distance to each group of columns, [N, G]; infinite to empty ones."""
    far = torch.full((len(distances),), torch.inf, dtype=distances.dtype)
    least = [distances[:, a:b].amin(dim=1) if b > a else far for a, b in itertools.pairwise(ends)]
    return torch.stack(least, dim=1)


def _covered_without(distances: Tensor, radii: Tensor, ends: list[int]) -> Tensor:
    """Whether each row is in a sample's ball where one group is left out, bool [N, G]."""
    found = []
    for group in range(GROUPS):
        is_in = distances < radii[group]
        is_in[:, ends[group] : ends[group + 1]] = False
        found.append(is_in.any(dim=1))
    return torch.stack(found, dim=1)
