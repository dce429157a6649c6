"""The images that a classifier is least sure of, by class: what keeps a generator's images from real ones."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..data.readers.source import printable
from ..evaluation.metrics.features import AMBIGUOUS_BELOW, is_ambiguous
from ..evaluation.reference import Images, Reference
from ..evaluation.samples import Samples
from .sheet import Block, Pictures, draw_sheet, grey

_SHOWN = 16  # images of a class
_SHARE = 0.1  # of its images, from which they are taken
_CLASSES_AT_MOST = 20


def draw_least_certain(sources: Sequence[Samples], reference: Reference) -> bytes:
    """Samples of each source, then real images, as a PNG: a row for each class that the classifier says they are.

    A row goes evenly through the tenth that it is least sure of, the least certain image first; beside it stands
    the share of the class with a confidence under 0.95. Of many classes those with the largest shares are shown.
    The reference has a classifier.
    """
    named = [(printable(each.source), each.images) for each in sources]
    named.append((f"real {reference.split} images", reference.test))
    blocks = [Block(name, [""] * _SHOWN, list(_rows(images, reference))) for name, images in named]
    subject = (
        f"{printable(reference.dataset)}, classes by the classifier. Each row goes through the tenth that it is "
        f"least sure of; beside it, the share of the class with a confidence under {AMBIGUOUS_BELOW:g}."
    )
    return draw_sheet("The least certain images of each class", subject, blocks)


def _rows(images: Images, reference: Reference) -> Iterator[tuple[str, Pictures]]:
    assert reference.classifier is not None
    _, probabilities = reference.classifier.describe(images)
    found, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    ambiguous = is_ambiguous(probabilities)
    members = {number: np.flatnonzero(found == number) for number in np.unique(found)}
    worst = sorted(members, key=lambda number: -ambiguous[members[number]].mean())[:_CLASSES_AT_MOST]
    for number in sorted(worst):
        own = members[number]
        order = own[np.argsort(confidence[own], kind="stable")]
        label = f"{printable(reference.classes[number])[:_SHOWN]}  {100 * ambiguous[own].mean():.0f} %"
        yield label, _row(images, order)


def _row(images: Images, order: NDArray[np.intp]) -> Pictures:
    """Pictures of images from the least certain one on; a row of fewer ends empty."""
    last = max(round(_SHARE * len(order)), _SHOWN) - 1
    places = np.linspace(0, last, _SHOWN).astype(int)
    shown = grey(images[order[places[places < len(order)]]])
    return np.concatenate([shown, np.zeros((_SHOWN - len(shown), *shown.shape[1:]), np.uint8)])
