"""What the images of a stream must be: the bits that `bgan generate` writes, which needs no server."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.kit.cli import bgan

SEED = 7
_FAR = 2**62 + 5


@dataclass(frozen=True)
class Piece:
    """Images of one revision, in order."""

    first_index: int
    count: int
    packed: bytes


class Reference:
    """Images of seed SEED of some models, at the beginning of their streams and far from it."""

    def __init__(self, folder: Path, count: int) -> None:
        """Nothing yet; `count` images of each model at the beginning, a tenth of it far away."""
        self.count = count
        self._folder = folder
        self._pieces: dict[str, list[Piece]] = {}

    def add(self, model: Path) -> str:
        """Generate the images of a model file; returns its revision."""
        revision = ""
        for first_index, count in ((0, self.count), (_FAR, self.count // 10)):
            output = self._folder / f"{len(self._pieces)}-{first_index}.bits"
            arguments = ("--count", count, "--seed", SEED, "--first-index", first_index, "--output", output)
            done = bgan("generate", model, *arguments)
            assert done.returncode == 0, done.stderr
            revision = json.loads(output.with_name(f"{output.name}.json").read_text())["revision"]
            self._pieces.setdefault(revision, []).append(Piece(first_index, count, output.read_bytes()))
        return revision

    def draw(self, rng, count: int) -> int:
        """A first index of `count` images that are known."""
        first_index, known = rng.choice([(0, self.count), (_FAR, self.count // 10)])
        return first_index + rng.randrange(known - count + 1)

    def check(self, batch) -> None:
        """Raises AssertionError if a batch of images is not what it must be, bit for bit."""
        assert batch.seed == SEED, f"seed {batch.seed} came instead of {SEED}"
        for piece in self._pieces[batch.revision]:
            start = batch.first_index - piece.first_index
            if start >= 0 and start + len(batch) <= piece.count:
                size = len(piece.packed) // piece.count
                expected = piece.packed[start * size : (start + len(batch)) * size]
                assert batch.packed_images.tobytes() == expected, (
                    f"wrong bits in images {batch.first_index} to {batch.next_index} of {batch.model}"
                )
                return
        raise AssertionError(f"images {batch.first_index} to {batch.next_index} were not asked for")

    def check_file(self, path: Path) -> None:
        """Raises AssertionError if an .npz of `bgan sample`, from index 0, is not what it must be, bit for bit."""
        with np.load(path) as file:
            packed, (piece, _) = file["packed_images"], self._pieces[str(file["revision"])]
        assert packed.tobytes() == piece.packed[: packed.size], f"wrong bits in {path.name}"

    def read(self, client, *, count: int, first_index: int, when_open=lambda: None, **options) -> None:
        """Read a stream to its end and check every image, and call `when_open` after the first batch."""
        next_index = first_index
        batches = client.sample_binary_images(image_count=count, first_index=first_index, seed=SEED, **options)
        for batch in batches:
            assert batch.first_index == next_index, f"image {batch.first_index} came instead of {next_index}"
            self.check(batch)
            next_index = batch.next_index
            if batch.first_index == first_index:
                when_open()
        assert next_index == first_index + count, f"the stream ended at {next_index} of {first_index + count}"
