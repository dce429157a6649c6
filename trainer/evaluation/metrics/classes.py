"""What a classifier says of samples: which classes are there, and how clearly.

Class probabilities are float [N, K], rows summing to 1.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, rel_entr

MISSING_BELOW = 0.01


def class_shares(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share of the samples by most likely class: float64 [K]."""
    counts = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])
    return np.asarray(counts / counts.sum())


def entropy(shares: NDArray[np.float64]) -> float:
    """Entropy of a distribution in bits: log2 K where all K classes are as frequent, 0 where there is one."""
    return float(entr(shares).sum() / np.log(2))


def missing_classes(shares: NDArray[np.float64]) -> int:
    """Classes with less than 1 % of the samples."""
    return int((shares < MISSING_BELOW).sum())


def inception_score(probabilities: NDArray[np.float32]) -> float:
    """Exp E KL(p(y | x) || p(y)), from 1 to K (Salimans et al. 2016), with the data set's own classifier."""
    p = np.asarray(probabilities, np.float64).clip(min=1e-12)
    return float(np.exp(rel_entr(p, p.mean(axis=0)).sum(axis=1).mean()))
