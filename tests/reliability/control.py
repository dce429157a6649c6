"""The positive control of the leak gate: servers that leak 10 MiB on purpose, and one that does not."""

import sys
import threading
from contextlib import contextmanager

import grpc

from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.conftest import ROOT
from tests.kit.servers import server

from .leaks import Bounds, Growth, growths, take_sample
from .watched_server import KINDS

CALLS = 2_000
_WARM_UP_CALLS = 300
_SAMPLES = 40
_FIGURES = {"memory": "allocated_mib", "files": "files"}
_PLAIN_MALLOC = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
"""glibc counts what threads have freed and keep for themselves as held: up to 0.2 MiB a thread."""
_STREAM = sampling_pb2.SampleBinaryImagesRequest(image_count=5_000, seed=1)


def watched(kind: str = "none") -> dict:
    """What makes `tests.kit.servers.server` start a watched server, which leaks or not."""
    program = (sys.executable, "-m", "tests.reliability.watched_server", kind)
    return {"program": program, "cwd": ROOT, "env": _PLAIN_MALLOC}


def growths_of_calls(models, kind: str = "none", calls: int = CALLS, *, under_load: bool = False) -> list[Growth]:
    """How a server went that answers so many small calls and leaks something for each.

    under_load: while streams are read beside them, which are few.
    """
    with server(models, **watched(kind)) as process, grpc.insecure_channel(process.target) as channel:
        stub = sampling_pb2_grpc.SamplingServiceStub(channel)

        def call(count):
            for _ in range(count):
                list(stub.SampleBinaryImages(sampling_pb2.SampleBinaryImagesRequest(image_count=1, seed=1)))

        call(_WARM_UP_CALLS)
        samples = []
        with _streams(stub) if under_load else _nothing():
            for _ in range(_SAMPLES):
                call(calls // _SAMPLES)
                samples.append(take_sample(process.process.pid))
    return growths(samples, Bounds(Bounds.allocated_mib * calls / CALLS, files=4, threads=4))


@contextmanager
def _nothing():
    yield


@contextmanager
def _streams(stub):
    """Two streams at a time are read within the context."""
    done = threading.Event()

    def read():
        while not done.is_set():
            list(stub.SampleBinaryImages(_STREAM))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def run_control(models) -> list[tuple[str, Growth, bool]]:
    """(kind, what it leaks, whether the gate said so) for each kind of leak, and for a server without one."""
    found = []
    for under_load, where in ((False, "at rest"), (True, "under load")):
        for kind in KINDS:
            growth = {each.name: each for each in growths_of_calls(models, kind, under_load=under_load)}
            leaking = growth[_FIGURES[kind]]
            found.append((f"a server that keeps {kind} for each call, {where}", leaking, leaking.is_leak))
        for growth in growths_of_calls(models, under_load=under_load):
            found.append((f"the server as it is, {where}", growth, not growth.is_leak))
    return found
