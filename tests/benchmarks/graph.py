"""Images a second of a CNN's fast graph, against the plain one."""

import tempfile
from pathlib import Path

import onnxruntime

from bgan.serving.models.engine import load_engine
from bgan.trainer.export.exporter import export_run
from tests.kit.models import make_run

from .measure import Figure, in_turns

_COUNT = 4_000


def measure():
    """For both neurons, by onnxruntime alone with its own settings, at the batch size that the server chooses."""
    with tempfile.TemporaryDirectory() as folder:
        return [figure for neuron in ("dbn", "sbn") for figure in _measure_case(Path(folder), neuron)]


def _measure_case(folder, neuron):
    run = make_run(folder / neuron, network="cnn", neuron=neuron)
    plain, fast = (
        export_run(run, folder, name=f"cnn-{neuron}-{graph}", graph=graph).path for graph in ("plain", "fast")
    )
    engine = load_engine(fast)
    batch_size = engine.preferred_batch_size()
    latents, uniforms, _ = engine.noise.draw(1, 0, batch_size)
    feeds = {"latents": latents}
    if uniforms is not None:
        feeds["uniforms"] = uniforms.reshape(batch_size, *engine.image_shape)

    runs = [_repeated(path, feeds, batch_size) for path in (plain, fast)]
    in_turns(*runs, rounds=1)
    plain_seconds, fast_seconds = in_turns(*runs, rounds=7)
    return [
        Figure(f"cnn-{neuron}: plain graph, batches of {batch_size}", _COUNT / plain_seconds, "images/s"),
        Figure(f"cnn-{neuron}: fast graph", _COUNT / fast_seconds, "images/s"),
        Figure(f"cnn-{neuron}: fast / plain", plain_seconds / fast_seconds, "ratio", "at least 1.5"),
    ]


def _repeated(path, feeds, batch_size):
    session = onnxruntime.InferenceSession(path)

    def run():
        for _ in range(0, _COUNT, batch_size):
            session.run(["images", "probabilities"], feeds)

    return run
