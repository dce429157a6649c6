"""Samples with asyncio: many calls at once in one thread, and a stream that is left early.

    python asynchronous.py 16     # how many seeds

The server is that of the variable BGAN_SERVER, or localhost:50051.
"""

import asyncio
import os
import sys
from contextlib import aclosing

import numpy as np

from bgan.clients import AsyncSamplingClient


async def first_index_of(client: AsyncSamplingClient, label: int, seed: int) -> int:
    """The index of a seed's first image of a class."""
    async with aclosing(client.sample_binary_images(image_count=10_000, seed=seed)) as batches:
        async for batch in batches:
            if batch.labels is not None and label in batch.labels:
                return batch.first_index + int(np.argmax(batch.labels == label))  # and the stream ends here
    raise LookupError(f"seed {seed} has no image of class {label} among its first 10,000")


async def main(seed_count: int) -> None:
    """Print 8 images of each seed, and where the last class of the model is found first."""
    async with AsyncSamplingClient(os.environ.get("BGAN_SERVER", "localhost:50051")) as client:
        info = await client.get_model()
        for batch in await asyncio.gather(*(client.sample(8, seed=seed) for seed in range(seed_count))):
            print(f"seed {batch.seed}: {batch.images.mean():.4f} on")
        if info.classes:
            label = len(info.classes) - 1
            found = await asyncio.gather(*(first_index_of(client, label, seed) for seed in range(seed_count)))
            print(f"class {info.classes[label]} comes first at {', '.join(map(str, found))}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
