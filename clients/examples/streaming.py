"""Streams images batch by batch, in the same memory for any number of them.

    python streaming.py 100000 1     # how many images, of which seed

The server is that of the variable BGAN_SERVER, or localhost:50051.
"""

import os
import sys

import numpy as np

from bgan.clients import SamplingClient


def main(image_count: int, seed: int) -> None:
    """Print how often pixels are on, and how many images of each class there are."""
    on, per_class = 0, np.zeros(0, int)
    with SamplingClient(os.environ.get("BGAN_SERVER", "localhost:50051")) as client:
        info = client.get_model()
        for batch in client.sample_binary_images(image_count=image_count, seed=seed):
            on += int(batch.images.sum())
            if batch.labels is not None:
                counts = np.bincount(batch.labels, minlength=len(info.classes))
                per_class = counts if not len(per_class) else per_class + counts
    pixels = image_count * np.prod(info.image_shape)
    print(f"{image_count} images of {info.name}: {on / pixels:.4f} of their pixels are on")
    for name, count in zip(info.classes, per_class, strict=True):
        print(f"class {name}: {count}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
