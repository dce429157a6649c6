"""What each layer of a call for one image, and of an image of a stream, costs: microseconds of CPU.

All runs in this process, without gRPC, whose own share is what a call costs the bare handler of grpc.aio.
"""

import asyncio
import tempfile
import time
from pathlib import Path

import uvloop
from grpc import StatusCode

from bgan.serving.config.settings import ServerSettings
from bgan.serving.models.engine import RUN_ROWS, Engine, _pack, load_engine
from bgan.serving.models.noise import ImageRange
from bgan.serving.models.registry import Registry
from bgan.serving.rpc.admission import Call, open_calls
from bgan.serving.rpc.arrivals import Arrivals
from bgan.serving.rpc.batching import DynamicBatcher
from bgan.serving.rpc.call_end import hold_until_end
from bgan.serving.rpc.context import ServiceContext
from bgan.serving.rpc.guard import CallGuard
from bgan.serving.rpc.sampling import SamplingServicer
from bgan.serving.rpc.stream_plan import plan_stream
from bgan.serving.telemetry.metrics import NO_METRICS
from bgan.v1 import sampling_pb2
from tests.kit.models import make_model

from .measure import Figure
from .processes import run_json, running

_ROUNDS, _REPEATS = 15, 300
_MODELS = (("mlp", "dbn"), ("mlp", "sbn"), ("cnn", "dbn"), ("cnn", "sbn"))
_SERVICE = sampling_pb2.DESCRIPTOR.services_by_name["SamplingService"]


class _Context:
    """What a handler asks of gRPC, answered at once."""

    def __init__(self, request):
        self._request = request

    def invocation_metadata(self):
        return (("user-agent", "grpc-python/1"),)

    def peer(self):
        return "ipv4:127.0.0.1:40000"

    def set_trailing_metadata(self, metadata):
        pass

    def time_remaining(self):
        return None

    async def read(self):
        return self._request


def measure():
    """The layers of a call, of the MLP with deterministic neurons; then those of an image of each model."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            make_model(Path(folder), f"{network}-{neuron}", network=network, neuron=neuron)
            for network, neuron in _MODELS
        ]
        yield from uvloop.run(_of_a_call(load_engine(paths[0])))
        with running("handlers", "bare", "--aio") as (process, ready):
            load = run_json("load", f"localhost:{ready['port']}", "--seconds", 2, "--pid", process.pid)
        yield Figure("a call: gRPC, as the bare handler has it", 1e3 * load["server_cpu_ms"], "us")
        for path in paths:
            yield from _of_an_image(load_engine(path))


class _Steps:
    """A call layer by layer: each step is the one before it and one layer more."""

    def __init__(self, engine: Engine) -> None:
        self.settings = ServerSettings()
        self.context = ServiceContext.build(self.settings, NO_METRICS)
        self.request = sampling_pb2.SampleBinaryImagesRequest(image_count=1, seed=1)
        self.grpc = _Context(self.request)
        self.places, self.arrivals = open_calls(self.settings), Arrivals(self.settings.stalled_write_seconds)
        self.batcher, self.plan = DynamicBatcher(engine, self.context.pool), self._planned(engine)
        self.images = engine.sample(1, 0, 1)
        sampling = SamplingServicer(self.context)
        sampling.serve(Registry([engine]))
        method = _SERVICE.methods_by_name["SampleBinaryImages"]
        guard = CallGuard(self.context)
        self.guarded = guard._guarded(sampling.SampleBinaryImages, method, self.context.authenticator)

    async def task(self):
        pass

    async def held(self):
        hold_until_end()

    async def recorded(self):
        await self.held()
        self.context.calls.end(self.context.calls.begin("method", self.grpc), StatusCode.OK)

    async def admitted(self):
        await self.recorded()
        self.places.take(self.grpc.peer())
        self.context.authenticator.enter(self.grpc)

    async def received(self):
        await self.admitted()
        await self.arrivals.receive(self.grpc, "connection")

    async def planned(self):
        await self.received()
        self._planned(self.context.models.find(""))

    async def slotted(self):
        await self.planned()
        async with Call(self.context.admission, self.grpc) as call:
            call._leave()

    async def sampled(self):
        await self.slotted()
        self.batcher.begin_call()
        await self.batcher.sample(self.plan.images)
        self.batcher.end_call()

    async def answered(self):
        await self.sampled()
        self.plan.encode(0, self.images).SerializeToString()

    async def whole(self):
        await self.guarded(None, self.grpc)

    def _planned(self, engine):
        return plan_stream(self.request, engine, self.settings)


_LAYERS = {
    "held": "what is held until its end",
    "recorded": "its record",
    "admitted": "its place, and who its caller is",
    "received": "a slot for its request to arrive",
    "planned": "its model and limits",
    "slotted": "a slot to run",
    "sampled": "sharing a run: noise, inference and packing too",
    "answered": "its answer",
}


async def _of_a_call(engine: Engine) -> list[Figure]:
    steps = _Steps(engine)
    spent = [await _in_tasks(getattr(steps, name)) for name in ("task", *_LAYERS, "whole")]
    steps.context.close()
    noise, image = engine.noise.draw(1, 0, 1), [ImageRange(1, 0, 1)]
    inner = {
        "noise": _least(lambda: engine.noise.draw_ranges(image)),
        "inference": _least(lambda: engine._infer(["images"], noise)),
        "all of it but gRPC": spent[-1] - spent[0],
    }
    layers = {
        text: after - before for text, before, after in zip(_LAYERS.values(), spent, spent[1:], strict=False)
    }
    return [Figure(f"a call: {text}", value, "us") for text, value in {**layers, **inner}.items()]


async def _in_tasks(step):
    async def run():
        for _ in range(_REPEATS):
            await asyncio.create_task(step())

    times = []
    for _ in range(_ROUNDS):
        start = time.process_time()
        await run()
        times.append((time.process_time() - start) / _REPEATS)
    return 1e6 * min(times)


def _least(work, repeats=_REPEATS):
    times = []
    for _ in range(_ROUNDS):
        start = time.process_time()
        for _ in range(repeats):
            work()
        times.append((time.process_time() - start) / repeats)
    return 1e6 * min(times)


def _of_an_image(engine: Engine):
    name = engine.manifest.name
    noise = engine.noise.draw(1, 0, RUN_ROWS)
    images = engine._infer(["images"], noise)[0]
    size = engine.preferred_batch_size()
    request = sampling_pb2.SampleBinaryImagesRequest(image_count=10**6, seed=1, batch_size=size)
    plan = plan_stream(request, engine, ServerSettings())
    batch = engine.sample(1, 0, size)
    for layer, work, count in (
        ("noise", lambda: engine.noise.draw(1, 0, RUN_ROWS), RUN_ROWS),
        ("inference", lambda: engine._infer(["images"], noise), RUN_ROWS),
        ("packing", lambda: _pack(images), RUN_ROWS),
        ("message", lambda: plan.encode(0, batch).SerializeToString(), size),
        ("all of it but gRPC", lambda: plan.encode(0, engine.sample(1, 0, size)).SerializeToString(), size),
    ):
        yield Figure(f"an image of {name}: {layer}", _least(work, 10) / count, "us")
