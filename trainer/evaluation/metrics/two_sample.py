"""A classifier two-sample test: can a fresh network tell samples from data? (Lopez-Paz and Oquab 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..classifier import accuracy, train_classifier

_STEPS_AT_MOST = 300


def two_sample_accuracy(first: NDArray[np.uint8], second: NDArray[np.uint8], *, seed: int = 0) -> float:
    """Accuracy, on a held-out half, of telling two sets of images [N, C, H, W] apart: 0.5 if they are alike.

    Both sets are cut to the length of the shorter one.
    """
    count = min(len(first), len(second))
    random = np.random.default_rng(seed)
    halves = [np.array_split(images[random.permutation(len(images))[:count]], 2) for images in (first, second)]
    (train, train_labels), (test, test_labels) = (_labelled(halves[0][i], halves[1][i]) for i in range(2))
    classifier = train_classifier(train, train_labels, classes=2, steps_at_most=_STEPS_AT_MOST, seed=seed)
    return accuracy(classifier, test, test_labels)


def _labelled(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return np.concatenate([first, second]), np.repeat(np.arange(2), [len(first), len(second)])
