"""Images of one's own, read as `bgan train --data` reads them."""

import numpy as np


def read_images(path, options):
    """The images of a file or folder as bool [N, C, H, W], and their labels as int64 [N] from 0, or None."""
    from bgan.trainer.data.binary_images import BinaryImages, settled_labels
    from bgan.trainer.data.readers.detect import open_images

    with open_images(path, options) as source:
        chunks = list(BinaryImages(source, options, path).chunks())
    labels, _ = settled_labels([labels for _, labels in chunks if labels is not None], source.classes)
    return np.concatenate([bits for bits, _ in chunks]), labels
