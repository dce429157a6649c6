"""Groups of images that belong together, as the bars of a song or the frames of a film, and are not parted."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from ..common.errors import DataError

_PAIRS = 2000
_SORTED_AT_MOST = 50_000  # of the images, to find others of their labels
_ALIKE = 0.7  # of the pixels in which two images of the set differ

Groups = NDArray[np.int64]


def in_whole_groups(groups: Groups, count: int, name: object) -> NDArray[np.bool_]:
    """Which images to hold out, about `count` of them: bool [N].

    Groups are taken in the order of the SHA-256 of their numbers, each that is not too large; one at least.
    Raises DataError where there is but one.
    """
    found, sizes = np.unique(groups, return_counts=True)
    if len(found) < 2:
        raise DataError(f"all images of {name} are of one group; --group-by needs two at least, to hold one out")
    held, left = [], count
    for place in sorted(range(len(found)), key=lambda place: hashlib.sha256(str(found[place]).encode()).digest()):
        if sizes[place] <= left:
            held.append(found[place])
            left -= int(sizes[place])
    return np.isin(groups, held or [found[sizes.argmin()]])


def note_on_neighbours(rows: NDArray[np.uint8], labels: NDArray[np.int64] | None) -> str | None:
    """What to say of packed images, uint8 [N, bytes], whose neighbours are much more alike than others; or None.

    Only images of one label are compared, since sets often lie in the order of their classes.
    """
    near = np.linspace(0, len(rows) - 2, min(_PAIRS, len(rows) - 1)).astype(np.int64)
    random = np.random.default_rng(0)
    others = random.integers(len(rows), size=(2, len(near)))
    if labels is not None:
        near = near[labels[near] == labels[near + 1]]
        some = np.linspace(0, len(rows) - 1, min(_SORTED_AT_MOST, len(rows))).astype(np.int64)
        order = some[np.lexsort((random.random(len(some)), labels[some]))]
        places = random.integers(len(some) - 1, size=len(near))
        others = np.stack((order[places], order[places + 1]))
    if not len(near):
        return None
    apart, usual = (_pixels_apart(rows, *pairs) for pairs in ((near, near + 1), others))
    if apart >= _ALIKE * usual:
        return None
    return (
        f"images that lie side by side differ in {apart:.0f} pixels, others in {usual:.0f}: where they belong "
        "together, as frames or bars do, every seventh is no fair test; --group-by or --test-data keeps them apart"
    )


def _pixels_apart(rows: NDArray[np.uint8], first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    return float(np.unpackbits(rows[first] ^ rows[second], axis=1).sum(axis=1).mean())
