"""The parts of a generator with gates, image by image: which of them run, and what each does.

Shapes: D images drawn, N latents shown, E parts, P of them that are turned over; an image is [C, H, W], uint8.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...evaluation.generator import Floats, Gates, Labels, TrainedGates
from ...evaluation.reference import Images

TURNED = 12
"""At most so many parts are turned over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """Which parts ran, and the images with one part forced on and off."""

    gates: Gates
    """1 where a part ran for an image: [D, E]."""
    shares: NDArray[np.float64]
    """The share of images for which each part runs, by class: [K, E]; without classes [1, E]."""
    turned: Images | None
    """Of the latents shown, with one gate each turned over: [N, P, C, H, W]; None: gates cannot be forced."""


def explore_parts(
    own: TrainedGates,
    latents: Floats,
    labels: Labels | None,
    inner: Floats | None,
    shown: int,
    binarized: Callable[[Floats], Images],
) -> Parts:
    """Of latents [D, Z], labels [D] and inner uniforms [D, n]; the first of them are `shown`.

    `binarized` maps probabilities [N, C, H, W] of those to images, by the same noise each time.
    """
    gates, turned = own.of(latents, labels, inner), None
    if own.forced is not None:
        first = gates[:shown]
        flips = [np.arange(own.count) == part for part in range(min(own.count, TURNED))]
        classes = None if labels is None else labels[:shown]
        turned = np.stack(
            [binarized(own.forced(latents[:shown], classes, first ^ flip)) for flip in flips], axis=1
        )
    return Parts(gates=gates, shares=own.shares, turned=turned)
