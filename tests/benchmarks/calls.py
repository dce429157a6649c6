"""Calls for one image: bgan against handlers that one would write, and beside an endless stream."""

import statistics
import tempfile
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import make_model, server

from .measure import Figure
from .processes import run_json, running, start_json

ROUNDS = 5
SECONDS = 1.5
MANY = 32
CHANNELS = 8
_HANDLERS = {
    "plain handler": ("plain",),
    "plain handler, aio": ("plain", "--aio"),
    "bare handler": ("bare",),
    "bare handler, aio": ("bare", "--aio"),
}


@dataclass(frozen=True)
class Server:
    """Where a load goes."""

    target: str
    pid: int
    options: tuple = ()


def measure():
    """One-image calls of each server from one caller and from many, in turns; then with a stream beside."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model = make_model(Path(folder), "mlp")
        process = stack.enter_context(server(folder))
        servers = {"bgan": Server(process.target, process.process.pid)}
        for name, arguments in _HANDLERS.items():
            servers[name] = stack.enter_context(_handler(model, arguments))
        alone, many, inference = _rounds(servers, model)
        beside, stream = _beside_a_stream(servers["bgan"])
    return [*_alone(alone, inference), *_many(many), *_fairness(alone["bgan"], beside, stream)]


@contextmanager
def _handler(model, arguments):
    with running("handlers", *arguments, "--model", model) as (process, ready):
        yield Server(f"localhost:{ready['port']}", process.pid)


def _rounds(servers, model):
    """Medians over the rounds, alone and from many callers, by server; and of one inference, in milliseconds."""
    alone, many, inference = defaultdict(list), defaultdict(list), []
    for _ in range(ROUNDS):
        inference.append(run_json("bare", model, "--seconds", 0.5)["p50_ms"])
        for name, each in servers.items():
            alone[name].append(_load(each, callers=1, channels=1))
            many[name].append(_load(each, callers=MANY, channels=CHANNELS))
    return _medians(alone), _medians(many), statistics.median(inference)


def _load(each, *, callers, channels, seconds=SECONDS):
    arguments = ("--callers", callers, "--channels", channels, "--seconds", seconds, "--pid", each.pid)
    return run_json("load", each.target, *arguments, *each.options)


def _medians(results):
    return {
        name: {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        for name, rounds in results.items()
    }


def _beside_a_stream(bgan):
    """A caller alone while a client reads a stream as fast as it comes: (the caller's figures, the stream's)."""
    with start_json("reader", bgan.target, "--seconds", 3 * SECONDS + 1, "--pid", bgan.pid) as reader:
        calls = _load(bgan, callers=1, channels=1, seconds=3 * SECONDS)
        return calls, reader()


def _alone(alone, inference):
    for name, each in alone.items():
        yield Figure(f"calls, 1 caller: {name}, p50", each["p50_ms"], "ms")
        yield Figure(f"calls, 1 caller: {name}, p99", each["p99_ms"], "ms")
    bare = min(each["p50_ms"] for name, each in alone.items() if name.startswith("bare"))
    yield Figure("calls, 1 caller: one bare inference, p50", inference, "ms")
    ratio = alone["bgan"]["p50_ms"] / (bare + inference)
    yield Figure("calls, 1 caller: bgan / (bare handler + bare inference), p50", ratio, "ratio", "at most 1.2")


def _many(many):
    for name, each in many.items():
        yield Figure(f"calls, {MANY} callers: {name}", each["calls_per_second"], "calls/s")
        yield Figure(f"calls, {MANY} callers: {name}, p50", each["p50_ms"], "ms")
        yield Figure(f"calls, {MANY} callers: {name}, p99", each["p99_ms"], "ms")
        yield Figure(f"calls, {MANY} callers: {name}, CPU of the server", each["server_cpu_ms"], "ms/call")
    rate = many["bgan"]["calls_per_second"]
    for name, bound in (("plain handler", "at least 1.4"), ("plain handler, aio", "")):
        ratio = rate / many[name]["calls_per_second"]
        yield Figure(f"calls, {MANY} callers: bgan / {name}", ratio, "ratio", bound)


def _fairness(alone, beside, stream):
    yield Figure("calls beside a stream, 1 caller: p50", beside["p50_ms"], "ms")
    yield Figure("calls beside a stream, 1 caller: p99", beside["p99_ms"], "ms")
    ratio = beside["p99_ms"] / alone["p50_ms"]
    yield Figure("calls beside a stream: p99 / p50 alone", ratio, "ratio", "under 20")
    yield Figure("calls beside a stream: the stream", stream["images_per_second"], "images/s")
