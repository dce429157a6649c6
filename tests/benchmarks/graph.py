"""Images a second of onnxruntime's CPU time: a CNN's fast graph against the plain one, integers against floats."""

import tempfile
import time
from pathlib import Path

import onnxruntime

from bgan.serving.models.engine import RUN_ROWS, load_engine
from bgan.trainer.exporting.exporter import export_run
from tests.kit.models import make_run

from .measure import Figure, in_turns

_COUNT = 2_560
_INTEGER_AIMS = {"mlp": "at least 1.8", "doubling-cnn": "at least 1.25"}  # on CPUs without VNNI


def measure():
    """Both graphs of the published CNN; both arithmetics of class-conditional models of the recipe's networks."""
    with tempfile.TemporaryDirectory() as folder:
        for neuron in ("dbn", "sbn"):
            run = make_run(Path(folder) / neuron, network="cnn", neuron=neuron)
            plain, fast = ({"graph": graph} for graph in ("plain", "fast"))
            yield from _compared(run, f"cnn-{neuron}", plain, fast, "at least 1.5")
        classes = tuple("0123456789")
        for network, aim in _INTEGER_AIMS.items():
            for neuron in ("dbn", "sbn"):
                options = {"network": network, "neuron": neuron, "conditional": True, "classes": classes}
                run = make_run(Path(folder) / f"{network}-{neuron}", **options)
                floats, integers = ({"arithmetic": arithmetic} for arithmetic in ("float", "integer"))
                yield from _compared(run, f"{network}-{neuron}", floats, integers, aim)


def _compared(run, name, first, second, aim):
    """Two exports of a run, each an option and its value, in batches of the server's runs."""
    paths, words = [], []
    for options in (first, second):
        (word,) = options.values()
        paths.append(export_run(run, run.folder, name=f"{name}-{word}", **options).path)
        words.append(word)
    engine = load_engine(paths[1])
    feeds = engine.noise.draw(1, 0, RUN_ROWS).feeds(engine.image_shape)
    runs = [_repeated(path, feeds) for path in paths]
    in_turns(*runs, rounds=1)
    seconds = in_turns(*runs, rounds=9, clock=time.process_time)
    for word, each in zip(words, seconds, strict=True):
        yield Figure(f"{name}: {word}, batches of {RUN_ROWS}", _COUNT / each, "images/s")
    yield Figure(f"{name}: {words[1]} / {words[0]}", seconds[0] / seconds[1], "ratio", aim)


def _repeated(path, feeds):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)

    def run():
        for _ in range(0, _COUNT, RUN_ROWS):
            session.run(["images"], feeds)

    return run
