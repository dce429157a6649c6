"""Statistics of preactivated outputs, the probabilities before binarization (paper, Figures 3 to 5)."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

BINS = 256
_INTERVALS = ((0.48, 0.52), (0.40, 0.48), (0.52, 0.60))  # the centre, and both its sides


def preactivation_histogram(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Shares of floor(255 p) for p in [0, 1], as in the paper's Figure 4: float64 [256].

    The last bin is p = 1 alone, which float32 reaches at logits of about 17.
    """
    levels = np.floor(np.asarray(probabilities, np.float32) * np.float32(255)).astype(np.uint8)
    counts = np.bincount(levels.ravel(), minlength=BINS)
    return np.asarray(counts / counts.sum())


def notch_ratio(probabilities: NDArray[np.float32]) -> float:
    """Density of p in (.48, .52) over the mean of those in (.40, .48) and (.52, .60): 1 if flat.

    A density that falls through 0.5 in a step is under 1 as well: see `notch_depth`. NaN where there is
    nothing on either side.
    """
    centre, *beside = _densities(probabilities)
    return float(centre / np.mean(beside)) if any(beside) else float("nan")


def notch_depth(probabilities: NDArray[np.float32]) -> float:
    """Density of p in (.48, .52) over the lower one of its two sides: under 1 only where there is a notch.

    NaN where there is nothing on that side.
    """
    centre, *beside = _densities(probabilities)
    return float(centre / min(beside)) if all(beside) else float("nan")


def middle_mass(probabilities: NDArray[np.float32]) -> float:
    """Share of p in [0.1, 0.9]."""
    return float(np.mean((probabilities >= 0.1) & (probabilities <= 0.9)))


def binary_entropy(probabilities: NDArray[np.float32]) -> float:
    """Mean of -p log2 p - (1 - p) log2(1 - p), in bits."""
    p = np.clip(np.asarray(probabilities, np.float64), 0, 1)  # onnxruntime's sigmoid reaches 1 + 1e-7
    return float((entr(p) + entr(1 - p)).mean() / np.log(2))


def draw_distance(probabilities: NDArray[np.float32]) -> float:
    """Pixels in which two Bernoulli draws of a row of probabilities [N, ...] differ: the sum of 2 p (1 - p)."""
    return _expected_difference(probabilities, probabilities)


def latent_distance(probabilities: NDArray[np.float32]) -> float:
    """Pixels in which Bernoulli draws of two rows [N, ...] that follow each other differ."""
    return _expected_difference(probabilities, np.roll(probabilities, 1, axis=0))


def _expected_difference(p: NDArray[np.float32], q: NDArray[np.float32]) -> float:
    return float((p * (1 - q) + q * (1 - p)).sum(dtype=np.float64) / max(1, len(p)))


def _densities(p: NDArray[np.float32]) -> list[float]:
    return [float(((p > low) & (p < high)).mean() / (high - low)) for low, high in _INTERVALS]
