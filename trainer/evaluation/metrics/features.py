"""Metrics of what a classifier makes of samples.

Two sets of feature vectors, float [N, D] and [M, D]: are they alike? Class probabilities, float [N, K],
rows summing to 1: which classes are there, and how clearly?
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, rel_entr

from .errors import Estimate, jackknife_error

Features = NDArray[np.float32]
_ROWS = 1000  # of a block of kernel values
MISSING_BELOW = 0.1
AMBIGUOUS_BELOW = 0.95


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


def kernel_distance(first: Features, second: Features) -> Estimate:
    """Kernel inception distance times 1000: `squared_mmd` of all samples (Binkowski et al. 2018).

    Unbiased, so it can be a little below 0. Both sets are first divided by the root mean square of `second`, the
    real one, so that the kernel's scale does not hang on the network's. Values from other features, such as those
    of an ImageNet classifier, do not compare.
    """
    scale = np.sqrt(np.mean(np.square(second, dtype=np.float64)))
    value, error = squared_mmd(first / scale, second / scale)
    return Estimate(1000 * value, None if error is None else 1000 * error)


def squared_mmd(first: Features, second: Features) -> Estimate:
    """Unbiased squared maximum mean discrepancy with the kernel (x . y / D + 1)^3.

    The mean over all pairs of samples, where that of random subsets would move with the draw. The error is the
    jackknife's, of the values without each vector of `first`.
    """
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    within, across = _kernel_sums(x, x) - _own_kernels(x), _kernel_sums(x, y)
    real = (_kernel_sums(y, y) - _own_kernels(y)).sum() / (len(y) * (len(y) - 1))

    def value(within: NDArray[np.float64], across: NDArray[np.float64], count: int) -> NDArray[np.float64]:
        return np.asarray(within / (count * (count - 1)) + real - 2 * across / (count * len(y)))

    without = value(within.sum() - 2 * within, across.sum() - across, len(x) - 1)
    return Estimate(float(value(within.sum(), across.sum(), len(x))), jackknife_error(without))


def _own_kernels(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The kernel of each sample with itself, [N]."""
    return np.asarray(((x * x).sum(axis=1) / x.shape[1] + 1) ** 3)


def _kernel_sums(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum over y of each sample's kernels, [N]."""
    sums = []
    for start in range(0, len(x), _ROWS):
        base = x[start : start + _ROWS] @ y.T / x.shape[1] + 1
        sums.append((base * base * base).sum(axis=1))  # numpy's ** 3 is many times slower
    return np.concatenate(sums)


def _moments(features: Features) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    features64 = np.asarray(features, np.float64)
    return features64.mean(axis=0), np.cov(features64, rowvar=False)


def class_shares(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share of the samples by most likely class, of class probabilities [N, K]: float64 [K]."""
    counts = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])
    return np.asarray(counts / counts.sum())


def entropy(shares: NDArray[np.float64]) -> float:
    """Entropy of a distribution in bits: log2 K where all K classes are as frequent, 0 where there is one."""
    return float(entr(shares).sum() / np.log(2))


def missing_classes(shares: NDArray[np.float64], real_shares: NDArray[np.float64]) -> int:
    """Classes of less than a tenth of their share of the real images."""
    return int((shares < MISSING_BELOW * real_shares).sum())


def share_deviation(shares: NDArray[np.float64], real_shares: NDArray[np.float64]) -> float:
    """The largest deviation of a class's share from that of the real images, relative to it: 0.1 is a tenth."""
    there = real_shares > 0
    return float(np.abs(shares[there] / real_shares[there] - 1).max())


def is_ambiguous(probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether the classifier's confidence, its largest class probability [N, K], is under 0.95: bool [N]."""
    return np.asarray(probabilities.max(axis=1) < AMBIGUOUS_BELOW)


def inception_score(probabilities: NDArray[np.float32]) -> float:
    """Exp E KL(p(y | x) || p(y)), from 1 to K (Salimans et al. 2016), with the data set's own classifier."""
    p = np.asarray(probabilities, np.float64).clip(min=1e-12)
    return float(np.exp(rel_entr(p, p.mean(axis=0)).sum(axis=1).mean()))
