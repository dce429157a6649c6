"""What the images of a stream must be: the bits that `bgan generate` writes, which needs no server."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bgan.serving.models.engine import Engine, load_engine
from tests.kit.cli import bgan

SEED = 7
_FAR = 2**62 + 5
_PROBABILITIES = 16  # images of a batch whose probabilities are compared; each takes an inference here
Labels = tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """Images of one revision and label, in order."""

    first_index: int
    count: int
    packed: bytes


class Reference:
    """Images of seed SEED of some models, at the beginning of their streams and far from it."""

    def __init__(self, folder: Path, count: int) -> None:
        """Nothing yet; `count` images of each model at the beginning, a tenth of it far away."""
        self.count = count
        self._folder = folder
        self._counts: dict[str, int] = {}
        self._classes: dict[str, int] = {}
        self._engines: dict[str, Engine] = {}
        self._pieces: dict[tuple[str, Labels], list[Piece]] = {}

    def add(self, model: Path, count: int | None = None) -> str:
        """Generate the images of a model file, of each of its first two classes too; returns its revision."""
        engine = load_engine(model, threads=1)
        self._engines[engine.revision] = engine
        self._counts[engine.manifest.name] = count or self.count
        self._classes[engine.manifest.name] = classes = min(len(engine.manifest.classes), 2)
        for labels in [(), *[(label,) for label in range(classes)]]:
            self._add(model, labels, count or self.count, engine)
        return engine.revision

    def _add(self, model, labels, count, engine):
        for first_index, known in ((0, count), (_FAR, count // 10)):
            output = self._folder / f"{len(self._pieces)}-{first_index}.bits"
            arguments = ("--count", known, "--seed", SEED, "--first-index", first_index, "--output", output)
            chosen = [option for label in labels for option in ("--label", engine.manifest.classes[label])]
            done = bgan("generate", model, *arguments, *chosen)
            assert done.returncode == 0, done.stderr
            written = json.loads(output.with_name(f"{output.name}.json").read_text())["revision"]
            assert written == engine.revision
            piece = Piece(first_index, known, output.read_bytes())
            self._pieces.setdefault((engine.revision, labels), []).append(piece)

    def most(self, model: str) -> int:
        """The most images of a stream of that model which are known wherever it begins."""
        return self._counts.get(model, self.count) // 10

    def draw(self, rng, count: int, model: str = "") -> int:
        """A first index of `count` images that are known."""
        first = self._counts.get(model, self.count)
        first_index, known = rng.choice([(0, first), (_FAR, first // 10)])
        return first_index + rng.randrange(known - count + 1)

    def draw_labels(self, rng, model: str) -> Labels:
        """None, or one of a class-conditional model that is known."""
        return rng.choice([(), *[(label,) for label in range(self._classes[model])]])

    def check(self, batch, labels: Labels = ()) -> None:
        """Raises AssertionError if a batch of images is not what it must be, bit for bit."""
        assert batch.seed == SEED, f"seed {batch.seed} came instead of {SEED}"
        for piece in self._pieces[batch.revision, labels]:
            start = batch.first_index - piece.first_index
            if start >= 0 and start + len(batch) <= piece.count:
                size = len(piece.packed) // piece.count
                expected = piece.packed[start * size : (start + len(batch)) * size]
                where = f"in images {batch.first_index} to {batch.next_index} of {batch.model}"
                assert batch.packed_images.tobytes() == expected, f"wrong bits {where}"
                self._check_the_rest(batch, labels, where)
                return
        raise AssertionError(f"images {batch.first_index} to {batch.next_index} were not asked for")

    def _check_the_rest(self, batch, labels, where):
        """Labels and probabilities, those of the first images."""
        if batch.probabilities is None and (batch.labels is None or labels == ()):
            return
        count = min(len(batch), _PROBABILITIES)
        engine = self._engines[batch.revision]
        made = engine.sample(SEED, batch.first_index, count, labels=labels, with_probabilities=True)
        if batch.labels is not None:
            assert tuple(batch.labels[:count].tolist()) == made.labels, f"wrong labels {where}"
        if batch.probabilities is not None:
            assert batch.probabilities[:count].tobytes() == made.probabilities, f"wrong probabilities {where}"

    def check_file(self, path: Path) -> None:
        """Raises AssertionError if an .npz of `bgan sample`, from index 0, is not what it must be, bit for bit."""
        with np.load(path) as file:
            packed, (piece, _) = file["packed_images"], self._pieces[str(file["revision"]), ()]
        assert packed.tobytes() == piece.packed[: packed.size], f"wrong bits in {path.name}"

    def read(
        self, client, *, count: int, first_index: int, when_open=lambda: None, labels: Labels = (), **options
    ) -> None:
        """Read a stream to its end and check every image, and call `when_open` after the first batch."""
        next_index = first_index
        batches = client.sample_binary_images(
            image_count=count, first_index=first_index, seed=SEED, labels=labels, **options
        )
        for batch in batches:
            assert batch.first_index == next_index, f"image {batch.first_index} came instead of {next_index}"
            self.check(batch, labels)
            next_index = batch.next_index
            if batch.first_index == first_index:
                when_open()
        assert next_index == first_index + count, f"the stream ended at {next_index} of {first_index + count}"
