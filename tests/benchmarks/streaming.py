"""Images a second of a real server and client, against onnxruntime alone."""

import tempfile
from pathlib import Path

import onnxruntime

from bgan.clients import SamplingClient
from bgan.serving.engine import Engine
from tests.support import make_model, server

from .measure import Figure, in_turns

_CASES = (("mlp", "dbn", 100_000), ("mlp", "sbn", 60_000), ("cnn", "dbn", 20_000))


def measure():
    """For each model, at the batch size that the server chooses."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        for network, neuron, _ in _CASES:
            make_model(models, f"{network}-{neuron}", network=network, neuron=neuron)
        with server(models) as process, SamplingClient(process.target) as client:
            return [figure for case in _CASES for figure in _measure_case(models, client, *case)]


def _measure_case(models, client, network, neuron, count):
    name = f"{network}-{neuron}"
    engine = Engine(models / f"{name}.onnx")
    batch_size = engine.preferred_batch_size
    session = onnxruntime.InferenceSession(models / f"{name}.onnx")
    latents, uniforms = engine.noise.draw(1, 0, batch_size)
    feeds = {"latents": latents}
    if uniforms is not None:
        feeds["uniforms"] = uniforms.reshape(batch_size, *engine.image_shape)

    def alone():
        for _ in range(0, count, batch_size):
            session.run(["images", "probabilities"], feeds)

    def streamed():
        batches = client.sample_binary_images(image_count=count, seed=1, model=name)
        assert sum(len(batch) for batch in batches) == count

    in_turns(alone, streamed, rounds=1)
    bare, stream = in_turns(alone, streamed, rounds=5)
    return [
        Figure(f"{name}: onnxruntime alone, batches of {batch_size}", count / bare, "images/s"),
        Figure(f"{name}: streamed over gRPC", count / stream, "images/s"),
        Figure(f"{name}: streamed / alone", bare / stream, "ratio", "at least 0.5"),
    ]
