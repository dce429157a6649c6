"""Metrics of two sets of feature vectors, float [N, D] and [M, D]: are they alike, and is each near the other."""

import contextlib
import io

import numpy as np
from numpy.typing import NDArray
from prdc import compute_prdc

Features = NDArray[np.float32]
_SUBSETS = 100
_SUBSET_SIZE = 1000


def frechet_distance(first: Features, second: Features) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of the two means and covariances (Heusel et al. 2017).

    The trace of the root is the sum of the roots of the eigenvalues of C1^(1/2) C2 C1^(1/2), which is
    symmetric, so no complex root arises.
    """
    (mean1, covariance1), (mean2, covariance2) = _moments(first), _moments(second)
    values, vectors = np.linalg.eigh(covariance1)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ covariance2 @ root).clip(min=0)).sum()
    distance = np.square(mean1 - mean2).sum() + np.trace(covariance1) + np.trace(covariance2) - 2 * cross
    return float(max(distance, 0.0))


def kernel_distance(first: Features, second: Features, *, seed: int = 0) -> float:
    """Kernel inception distance times 1000: the mean of `squared_mmd` over 100 random subsets of at most 1000.

    Binkowski et al. 2018. Unbiased, so it can be a little below 0. Both sets are first divided by the
    root mean square of `second`, the real one, so that the kernel's scale does not hang on the network's.
    """
    scale = np.sqrt(np.mean(np.square(second, dtype=np.float64)))
    first, second = first / scale, second / scale
    random = np.random.default_rng(seed)
    size = min(_SUBSET_SIZE, len(first), len(second))
    estimates = [
        squared_mmd(
            first[random.choice(len(first), size, replace=False)],
            second[random.choice(len(second), size, replace=False)],
        )
        for _ in range(_SUBSETS)
    ]
    return 1000 * float(np.mean(estimates))


def squared_mmd(first: Features, second: Features) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x . y / D + 1)^3."""
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return float(_off_diagonal_mean(_kernel(x, x)) + _off_diagonal_mean(_kernel(y, y)) - 2 * _kernel(x, y).mean())


def _kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    base = x @ y.T / x.shape[1] + 1
    values: NDArray[np.float64] = base * base * base  # numpy's ** 3 is many times slower
    return values


def _off_diagonal_mean(matrix: NDArray[np.float64]) -> float:
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))


def _moments(features: Features) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    features64 = np.asarray(features, np.float64)
    return features64.mean(axis=0), np.cov(features64, rowvar=False)


NEIGHBOURS = 5


def precision_recall_density_coverage(
    real: NDArray[np.float32], fake: NDArray[np.float32], *, neighbours: int = NEIGHBOURS
) -> dict[str, float]:
    """The four by name, of features [N, D] and [M, D].

    Precision and recall: Kynkaanniemi et al. 2019; density and coverage: Naeem et al. 2020, by
    their package. Two samples of one distribution have a density of about 1; the others are at most 1.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints its counts
        found = compute_prdc(real_features=real, fake_features=fake, nearest_k=neighbours)
    return {name: float(found[name]) for name in ("precision", "recall", "density", "coverage")}
