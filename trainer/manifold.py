"""Precision, recall, density and coverage: are samples near the data, and is all of the data near samples."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from numpy.typing import NDArray
from prdc import compute_prdc

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
