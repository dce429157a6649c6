"""The positive control of the leak gate: servers that leak on purpose, and one that does not."""

import sys

import grpc

from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.conftest import ROOT
from tests.kit.servers import server

from .leaking_server import KINDS
from .leaks import Bounds, Growth, growths, take_sample

BOUNDS = Bounds(resident_mib=4, files=4, threads=4)
CALLS = 2_000
_WARM_UP_CALLS = 300
_SAMPLES = 20
_FIGURES = {"memory": "resident_mib", "files": "files"}


def growths_of_calls(models, kind: str | None, calls: int = CALLS) -> list[Growth]:
    """How a server went that answers so many small calls and leaks something for each; None: nothing."""
    leaking = {"program": (sys.executable, "-m", "tests.reliability.leaking_server", kind), "cwd": ROOT}
    with server(models, **(leaking if kind else {})) as process, grpc.insecure_channel(process.target) as channel:
        stub = sampling_pb2_grpc.SamplingServiceStub(channel)

        def call(count):
            for _ in range(count):
                list(stub.SampleBinaryImages(sampling_pb2.SampleBinaryImagesRequest(image_count=1, seed=1)))

        call(_WARM_UP_CALLS)
        samples = []
        for _ in range(_SAMPLES):
            call(calls // _SAMPLES)
            samples.append(take_sample(process.process.pid))
    return growths(samples, BOUNDS)


def run_control(models) -> list[tuple[str, Growth, bool]]:
    """(kind, what it leaks, whether the gate said so) for each kind of leak, and for a server without one."""
    found = []
    for kind in KINDS:
        leaking = {growth.name: growth for growth in growths_of_calls(models, kind)}[_FIGURES[kind]]
        found.append((f"a server that keeps {kind} for each call", leaking, leaking.is_leak))
    for growth in growths_of_calls(models, None):
        found.append(("the server as it is", growth, not growth.is_leak))
    return found
