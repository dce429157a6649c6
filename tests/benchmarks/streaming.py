"""Images a second of a real server and client, against onnxruntime alone and against Triton."""

import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from tests.kit.models import make_model
from tests.kit.servers import server

from . import triton
from .measure import Figure, medians
from .processes import run_json

ROUNDS = 3
SECONDS = 1.0
_MODELS = {
    f"{network}-{neuron}{suffix}": {"network": network, "neuron": neuron, "arithmetic": arithmetic}
    for arithmetic, suffix in (("float", ""), ("integer", "-integer"))
    for network in ("mlp", "cnn")
    for neuron in ("dbn", "sbn")
}
_CALLS_IN_FLIGHT = 2  # of Triton: one is on its way while another is inferred
_BARE = {
    "as it comes": (),
    "2 sessions of 1 thread": ("--workers", 2, "--threads", 1),
    "2 processes of 1 thread": ("--workers", 2, "--threads", 1, "--processes"),
}


def measure():
    """Each model in turns: streamed, onnxruntime alone at the server's batch size, and behind Triton."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        models = Path(folder)
        for name, settings in _MODELS.items():
            make_model(models, name, **settings)
        process = stack.enter_context(server(models))
        try:
            behind_triton = stack.enter_context(triton.serving(models))
        except triton.SkippedError as error:
            behind_triton = None
            yield Figure("streams: Triton", None, "", f"skipped: {error}")
        for name in _MODELS:
            yield from _measure_model(models / f"{name}.onnx", process, behind_triton)


def _measure_model(path, process, behind_triton):
    results = defaultdict(list)
    for _ in range(ROUNDS):
        stream = _streamed(path.stem, process)
        results["streamed"].append(stream)
        size = round(stream["images_per_message"])
        for name, arguments in _BARE.items():
            arguments = (path, "--batch-size", size, "--seconds", SECONDS, *arguments)  # noqa: PLW2901
            results[name].append(run_json("bare", *arguments))
        if behind_triton:
            results["Triton"].append(_behind_triton(path.stem, *behind_triton))
    return _figures(path.stem, medians(results))


def _streamed(model, process):
    arguments = ("--model", model, "--seconds", SECONDS, "--pid", process.process.pid)
    return run_json("reader", process.target, *arguments)


def _behind_triton(model, server, options):
    load = ("--callers", _CALLS_IN_FLIGHT, "--seconds", SECONDS, "--pid", server.pid)
    calls = run_json("load", server.target, *load, *options(model, triton.BATCH_SIZE))
    return {
        "images_per_second": calls["calls_per_second"] * triton.BATCH_SIZE,
        "server_cpu_seconds_per_million": 1e3 * calls["server_cpu_ms"] / triton.BATCH_SIZE,
    }


def _figures(model, results):
    stream, plain = results["streamed"], results["as it comes"]
    rate = stream["images_per_second"]
    size = round(stream["images_per_message"])
    yield Figure(f"{model}: streamed, {size} images a message", rate, "images/s")
    for name in _BARE:
        yield Figure(f"{model}: onnxruntime {name}", results[name]["images_per_second"], "images/s")
    yield Figure(
        f"{model}: streamed / onnxruntime as it comes", rate / plain["images_per_second"], "ratio", "at least 0.9"
    )
    best = max(results[name]["images_per_second"] for name in _BARE)
    yield Figure(f"{model}: streamed / onnxruntime at its best", rate / best, "ratio")
    for who in ("server", "client"):
        spent = stream[f"{who}_cpu_seconds_per_million"]
        yield Figure(f"{model}: CPU of the {who}", spent, "s/million images")
    yield Figure(f"{model}: CPU of onnxruntime as it comes", plain["cpu_seconds_per_million"], "s/million images")
    if "Triton" in results:
        behind = results["Triton"]
        yield Figure(f"{model}: Triton, noise ready in requests", behind["images_per_second"], "images/s")
        yield Figure(f"{model}: streamed / Triton", rate / behind["images_per_second"], "ratio", "above 1")
        yield Figure(f"{model}: CPU of Triton", behind["server_cpu_seconds_per_million"], "s/million images")
