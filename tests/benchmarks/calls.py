"""Calls for one image: bgan against handlers that one would write and Triton, and beside an endless stream."""

import json
import statistics
import tempfile
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.kit.models import make_model
from tests.kit.servers import server

from . import triton
from .measure import Figure, medians
from .processes import Server, run_json, running

ROUNDS = 3
SECONDS = 1.5
_MANY = 32
_CHANNELS = 8
_START_SECONDS = 4  # of the load, at the most
_HANDLERS = {
    "plain handler": ("plain",),
    "plain handler, aio": ("plain", "--aio"),
    "bare handler": ("bare",),
    "bare handler, aio": ("bare", "--aio"),
}


def measure():
    """One-image calls of each server from one caller and from many, in turns; then with a stream beside."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model = make_model(Path(folder), "mlp")
        process = stack.enter_context(server(folder))
        bgan = Server(process.target, process.process.pid)
        servers = {"bgan": (bgan, ())}
        for name, arguments in _HANDLERS.items():
            servers[name] = (stack.enter_context(_handler(model, arguments)), ())
        try:
            behind_triton, options = stack.enter_context(triton.serving(Path(folder)))
            servers["Triton"] = (behind_triton, options(model.stem, 1))
        except triton.SkippedError as error:
            yield Figure("calls: Triton", None, "", f"skipped: {error}")
        alone, many, inference = _rounds(servers, model)
        beside, stream = _beside_a_stream(bgan)
    yield from _alone(alone, inference)
    yield from _from_many(many)
    yield from _fairness(alone["bgan"], beside, stream)


@contextmanager
def _handler(model, arguments):
    with running("handlers", *arguments, "--model", model) as (process, ready):
        yield Server(f"localhost:{ready['port']}", process.pid)


def _rounds(servers, model):
    """Medians over the rounds, alone and from many callers, by server; and of one inference, in milliseconds."""
    alone, many, inference = defaultdict(list), defaultdict(list), []
    for _ in range(ROUNDS):
        inference.append(run_json("bare", model, "--seconds", 0.5)["p50_ms"])
        for name, (each, options) in servers.items():
            alone[name].append(_load(each, *options, callers=1, channels=1))
            many[name].append(_load(each, *options, callers=_MANY, channels=_CHANNELS))
    return medians(alone), medians(many), statistics.median(inference)


def _load(each, *options, callers, channels, seconds=SECONDS):
    arguments = ("--callers", callers, "--channels", channels, "--seconds", seconds, "--pid", each.pid)
    return run_json("load", each.target, *arguments, *options)


def _beside_a_stream(bgan):
    """A caller alone while a client reads a stream as fast as it comes: (the caller's figures, the stream's)."""
    seconds = 3 * SECONDS
    reading = ("--seconds", seconds + _START_SECONDS, "--pid", bgan.pid)
    with running("reader", bgan.target, *reading) as (reader, _):
        calls = _load(bgan, callers=1, channels=1, seconds=seconds)
        if reader.poll() is not None:
            raise RuntimeError("the stream ended before the calls did; is the machine busy?")
        return calls, json.loads(reader.stdout.readline())


def _alone(alone, inference):
    for name, each in alone.items():
        yield Figure(f"calls, 1 caller: {name}, p50", each["p50_ms"], "ms")
        yield Figure(f"calls, 1 caller: {name}, p99", each["p99_ms"], "ms")
    bare = min(each["p50_ms"] for name, each in alone.items() if name.startswith("bare"))
    yield Figure("calls, 1 caller: one bare inference, p50", inference, "ms")
    ratio = alone["bgan"]["p50_ms"] / (bare + inference)
    yield Figure("calls, 1 caller: bgan / (bare handler + bare inference)", ratio, "ratio", "at most 1.2")


def _from_many(many):
    for name, each in many.items():
        yield Figure(f"calls, {_MANY} callers: {name}", each["calls_per_second"], "calls/s")
        yield Figure(f"calls, {_MANY} callers: {name}, p50", each["p50_ms"], "ms")
        yield Figure(f"calls, {_MANY} callers: {name}, p99", each["p99_ms"], "ms")
        yield Figure(f"calls, {_MANY} callers: {name}, CPU of the server", each["server_cpu_ms"], "ms/call")
    rate = many["bgan"]["calls_per_second"]
    bounds = {"plain handler": "at least 1.4", "plain handler, aio": "", "Triton": "above 1"}
    for name, bound in bounds.items():
        if name in many:
            ratio = rate / many[name]["calls_per_second"]
            yield Figure(f"calls, {_MANY} callers: bgan / {name}", ratio, "ratio", bound)


def _fairness(alone, beside, stream):
    yield Figure("calls beside a stream, 1 caller: p50", beside["p50_ms"], "ms")
    yield Figure("calls beside a stream, 1 caller: p99", beside["p99_ms"], "ms")
    ratio = beside["p99_ms"] / alone["p50_ms"]
    yield Figure("calls beside a stream: p99 / p50 alone", ratio, "ratio", "under 20")
    yield Figure("calls beside a stream: the stream", stream["images_per_second"], "images/s")
