"""Statistics of preactivated outputs, the probabilities before binarization (paper, Figures 3 to 5)."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

BINS = 256
_INTERVALS = ((0.48, 0.52), (0.40, 0.48), (0.52, 0.60))  # the centre, and both its sides


def preactivation_histogram(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Shares of the `levels`, as in the paper's Figure 4: float64 [256]."""
    counts = np.bincount(levels(probabilities).ravel(), minlength=BINS)
    return np.asarray(counts / counts.sum())


def levels(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """floor(255 p) for p in [0, 1], of the same shape.

    The last one is p = 1 alone, which float32 reaches at logits of about 17.
    """
    return np.asarray(np.floor(np.asarray(probabilities, np.float32) * np.float32(255)), np.uint8)


def densities(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """By image, the densities of p in (.48, .52), (.40, .48) and (.52, .60): float64 [N, 3]."""
    p = probabilities.reshape(len(probabilities), -1)
    return np.stack([((p > low) & (p < high)).mean(axis=1) / (high - low) for low, high in _INTERVALS], axis=1)


def notch_ratio(densities: NDArray[np.float64]) -> float:
    """Of `densities` [N, 3], that of the centre over the mean of both sides: 1 if flat.

    A density that falls through 0.5 in a step is under 1 as well: see `notch_depth`. NaN where there is
    nothing on either side.
    """
    centre, *beside = densities.mean(axis=0)
    return float(centre / np.mean(beside)) if any(beside) else float("nan")


def notch_depth(densities: NDArray[np.float64]) -> float:
    """Of `densities` [N, 3], that of the centre over the lower side's: under 1 only where there is a notch.

    NaN where there is nothing on that side.
    """
    centre, *beside = densities.mean(axis=0)
    return float(centre / min(beside)) if all(beside) else float("nan")


def is_in_the_middle(probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether p is in [0.1, 0.9]."""
    return np.asarray((probabilities >= 0.1) & (probabilities <= 0.9))


def binary_entropies(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """-p log2 p - (1 - p) log2(1 - p), in bits; a p that rounding put beyond 0 or 1 is taken for that."""
    p = np.asarray(probabilities, np.float64).clip(0, 1)
    return np.asarray((entr(p) + entr(1 - p)) / np.log(2))


def draw_distances(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Pixels in which two Bernoulli draws of each row [N, ...] differ in the mean, 2 p (1 - p) summed: [N]."""
    return _expected_differences(probabilities, probabilities)


def latent_distances(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Pixels in which Bernoulli draws of each row [N, ...] and of the one before it differ in the mean: [N]."""
    return _expected_differences(probabilities, np.roll(probabilities, 1, axis=0))


def _expected_differences(p: NDArray[np.float32], q: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray((p * (1 - q) + q * (1 - p)).reshape(len(p), -1).sum(axis=1, dtype=np.float64))
