"""Images a second of `bgan generate` into a file, against onnxruntime alone; and of `bgan bulk` by two workers."""

import shutil
import tempfile
from pathlib import Path

import onnxruntime
from rich.console import Console

from bgan.serving.config.settings import SHIPPED
from bgan.serving.generate.bulk import BulkRequest, bulk
from bgan.serving.generate.generate import GenerationRequest, generate, open_model
from tests.kit.models import make_model

from .measure import Figure, in_turns

_CASES = (("mlp", "dbn", 60_000), ("mlp", "sbn", 40_000), ("cnn", "dbn", 20_000))
_SUFFIXES = (".npz", ".npy")
_BULK_IMAGES, _SHARD_IMAGES = 4_000_000, 100_000  # so many that the start of a worker does not count


def measure():
    """For each model, from the first image to the finished file; loading the model is not in it."""
    with tempfile.TemporaryDirectory() as folder:
        alone = [figure for case in _CASES for figure in _measure_case(Path(folder), *case)]
        return [*alone, *_measure_bulk(Path(folder) / "bulk")]


def _measure_bulk(output):
    """From the first worker's start to the manifest."""
    engine = open_model("mlp-dbn", SHIPPED)

    def made(workers):
        request = BulkRequest(
            output=str(output), count=_BULK_IMAGES, seed=1, shard_images=_SHARD_IMAGES, workers=workers
        )
        bulk(engine, request, Console(quiet=True))
        shutil.rmtree(output)

    one, two = in_turns(lambda: made(1), lambda: made(2), rounds=2)
    yield Figure("bulk, one worker, parquet", _BULK_IMAGES / one, "images/s")
    yield Figure("bulk, two workers / twice one", one / two / 2, "ratio", "at least 0.95")


def _measure_case(folder, network, neuron, count):
    name = f"{network}-{neuron}"
    path = make_model(folder, name, network=network, neuron=neuron)
    engine = open_model(name, folder)
    batch_size = engine.preferred_batch_size()
    session = onnxruntime.InferenceSession(path)
    feeds = engine.noise.draw(1, 0, batch_size).feeds(engine.image_shape)

    def alone():
        for _ in range(0, count, batch_size):
            session.run(["images", "probabilities"], feeds)

    def generated(suffix):
        request = GenerationRequest(output=folder / f"{name}{suffix}", count=count, seed=1, overwrite=True)
        generate(engine, request, Console(quiet=True))

    for suffix in _SUFFIXES:
        bare, whole = in_turns(alone, lambda suffix=suffix: generated(suffix), rounds=3)
        yield Figure(f"{name}: onnxruntime alone, batches of {batch_size}", count / bare, "images/s")
        yield Figure(f"{name}: generated into {suffix}", count / whole, "images/s")
        yield Figure(f"{name}: generated into {suffix} / alone", bare / whole, "ratio", "at least 0.9")
