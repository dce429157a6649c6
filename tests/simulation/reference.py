"""What the images of a stream must be, from the engine alone."""

from functools import cache

import numpy as np

from bgan.serving.models.engine import load_engine
from tests.fixtures.write import FOLDER

_FILES = ("classes/sbn.onnx", "classes/dbn.onnx")
OLD, NEW = ((FOLDER / file).read_bytes() for file in _FILES)
SEEDS = (1, 2**62)
STARTS = (0, 2**40)
COUNT = 400
"""Images that are known from each start on."""


@cache
def _engines():
    return {each.revision: each for each in (load_engine(FOLDER / file) for file in _FILES)}


def revision_of(content):
    """Of OLD or NEW."""
    return list(_engines())[content == NEW]


@cache
def _expected(revision, seed, start):
    engine = _engines()[revision]
    batch = engine.sample(seed, start, COUNT)
    return np.frombuffer(batch.packed_images, np.uint8).reshape(COUNT, engine.packed_bytes), np.array(batch.labels)


def is_right(batch):
    """Whether an ImageBatch is what its revision, seed and place say."""
    start = max(each for each in STARTS if each <= batch.first_index)
    images, labels = _expected(batch.revision, batch.seed, start)
    rows = slice(batch.first_index - start, batch.next_index - start)
    return np.array_equal(batch.packed_images, images[rows]) and np.array_equal(batch.labels, labels[rows])
