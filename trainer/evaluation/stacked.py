"""Stacked MNIST: its classifier, which looks at each digit by itself, and what is said of its 1,000 modes.

A network of 1,000 classes would have 60 images of each to learn from; that of MNIST, which comes with bgan, has
6,000 of each digit.
"""

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr
from torch import nn

from .classifier import Classifier, cached_classifier


class StackedClassifier(nn.Module):
    """A classifier of digits, applied to each of C channels: 10^C classes, the first channel's digit in front."""

    def __init__(self, digits: Classifier) -> None:
        super().__init__()
        self.digits = digits

    def describe(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(features [N, 128 C], class probabilities [N, 10^C]) of uint8 [N, C, H, W] images."""
        channels = range(images.shape[1])
        features, probabilities = zip(
            *(self.digits.describe(np.ascontiguousarray(images[:, [channel]])) for channel in channels),
            strict=True,
        )
        return np.concatenate(features, axis=1), reduce(_pairs, probabilities)


def _pairs(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities [N, J] and [N, K] of two independent classes as those of both, [N, J K]."""
    return (first[:, :, np.newaxis] * second[:, np.newaxis]).reshape(len(first), -1)


def stacked_classifier(
    images: NDArray[np.uint8], labels: NDArray[np.int64], **options: Any
) -> tuple[StackedClassifier, str]:
    """The classifier of these training images and its digest; the options are those of `cached_classifier`.

    Its own is that of their first channel, whose images are MNIST's, in their order.
    """
    first = np.ascontiguousarray(images[:, :1])
    digits, digest = cached_classifier(first, labels // 10 ** (images.shape[1] - 1), **options)
    return StackedClassifier(digits).eval(), digest


def modes_found(shares: NDArray[np.float64]) -> int:
    """Classes that any sample is of (Metz et al. 2017)."""
    return int((shares > 0).sum())


def mode_divergence(shares: NDArray[np.float64], real_shares: NDArray[np.float64]) -> float:
    """KL divergence of the samples' classes from the real ones, in nats; 0: alike (Metz et al. 2017).

    With K classes and N samples drawn as the real ones are it is about (K - 1) / 2N, not 0.
    """
    return float(rel_entr(shares, real_shares).sum())
