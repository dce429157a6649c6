"""Writes a stream to a file, and resumes it after whatever stopped it: run the same command again.

    python resuming.py digits.bits 1000000

The client itself resumes when a server restarts. This is for when the program stops: the file holds packed images
alone, so its size says which image is next; the .json beside it says of which stream. `bgan.clients.load_images`
reads both. The server is that of the variable BGAN_SERVER, or localhost:50051.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from bgan.clients import ImageBatch, RevisionChangedError, SamplingClient


def main(path: Path, image_count: int) -> None:
    """Write the images that the file lacks."""
    about = _about(path)
    with SamplingClient(os.environ.get("BGAN_SERVER", "localhost:50051")) as client, path.open("ab") as file:
        done = path.stat().st_size // about["bytes_per_image"] if about else 0
        file.truncate(done * about.get("bytes_per_image", 0))  # an image that was cut is sampled again
        if done == image_count:
            return
        batches = client.sample_binary_images(
            image_count=image_count - done,
            first_index=done,
            seed=about.get("seed"),
            model=about.get("model"),
            revision=about.get("revision"),
        )
        try:
            for batch in batches:
                if not about:
                    about = _describe(path, batch, image_count)
                file.write(batch.packed_images.tobytes())
        except RevisionChangedError as error:
            sys.exit(f"{error}\nOr remove {path} and its .json, and begin a stream of the new model.")
    print(f"{path}: {image_count} images, of which {done} were there")


def _about(path: Path) -> dict[str, Any]:
    """What is known of the stream; nothing before its first batch."""
    try:
        return dict(json.loads(path.with_name(f"{path.name}.json").read_text()))
    except FileNotFoundError:
        return {}


def _describe(path: Path, batch: ImageBatch, image_count: int) -> dict[str, Any]:
    about = {
        **{name: getattr(batch, name) for name in ("model", "revision", "seed", "first_index", "image_shape")},
        "image_count": image_count,
        "bytes_per_image": batch.packed_images.shape[1],
    }
    path.with_name(f"{path.name}.json").write_text(json.dumps(about))
    return about


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
