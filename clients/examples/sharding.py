"""Splits a stream over processes: each samples a range, and the ranges together are the images of one stream.

    python sharding.py digits.npy 100000 4     # the file, how many images, by how many processes

Machines split it in the same way: what a range holds depends on the revision, the seed and the indices alone.
The servers are those of the variable BGAN_SERVER, separated by spaces, or localhost:50051; each range is shared
out over all of them.
"""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from bgan.clients import ImageBatch, SamplingClient

SEED = 1


def sample_range(first_index: int, image_count: int, revision: str) -> ImageBatch:
    """A range of the stream, from a client of this process's own."""
    servers = os.environ.get("BGAN_SERVER", "localhost:50051").split()
    with SamplingClient(servers) as client:
        return client.sample(image_count, seed=SEED, first_index=first_index, revision=revision)


def main(path: str, image_count: int, process_count: int) -> None:
    """Write all images as uint8 [n, channels, height, width]."""
    with SamplingClient(os.environ.get("BGAN_SERVER", "localhost:50051").split()) as client:
        revision = client.get_model().revision  # the same for all, even if the model is replaced meanwhile
    cuts = [image_count * shard // process_count for shard in range(process_count + 1)]
    counts = np.diff(cuts).tolist()
    spawn = multiprocessing.get_context("spawn")  # processes that are forked from one that used gRPC may hang
    with ProcessPoolExecutor(process_count, mp_context=spawn) as pool:
        parts = list(pool.map(sample_range, cuts[:-1], counts, [revision] * process_count))
    whole = ImageBatch.concatenate(parts)  # which checks that they follow each other
    np.save(path, whole.images)
    print(f"{path}: {whole}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
