"""Whether a server keeps something of each deed: the same deed in three rounds, and what each round added.

A line over time says that something rises; this says of what, and sees far less of it, since a server at rest
holds the same to some hundredths of a MiB. The first round fills what is kept once. A leak adds in both others.
"""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice, pairwise

import grpc

from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.conftest import ROOT

from .faults import (
    Request,
    Site,
    a_storm_of_cancels,
    bad_model_files,
    many_streams_at_once,
    models_are_replaced,
    readers_stand_still,
)
from .frames import Frames, inputs, rules_of
from .load import CALL_SECONDS
from .messages import encoded, valid_messages
from .rest import Rest
from .web import HttpClient, address_of
from .wire import methods_of, send_garbage

BOUND_MIB = 0.1
"""What each of the later rounds may add beside what is known of the deed."""
BOUND_FILES = 4
CANCELLED_BYTES = 110
"""grpc.aio does not free the 96 bytes of an operation that fails, as reading the request of a cancelled call does:
https://github.com/grpc/grpc/issues/43360, in grpcio 1.85 too. A server without bgan keeps as much."""
FUZZED_BYTES = 30
"""The same: the part of the fuzzer's calls that end so."""
_ROUNDS = 3
_AT_ONCE = 8
_MIB = 1024 * 1024
_INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Deed:
    """Something that callers or operators do, so many times a round."""

    name: str
    count: int
    do: Callable[[Site, int], None]
    known_bytes: int = 0
    """What gRPC itself keeps of each."""


@dataclass(frozen=True)
class Added:
    """What the rounds after the first added to what a server at rest holds."""

    deed: str
    count: int
    """Times a round."""
    mib: tuple[float, ...]
    """By round."""
    files: tuple[float, ...]
    known_bytes: int = 0
    """What gRPC itself keeps of each."""

    @property
    def is_leak(self) -> bool:
        """Whether each round added more than it may."""
        bound = BOUND_MIB + self.known_bytes * self.count / _MIB
        return min(self.mib) > bound or min(self.files) > BOUND_FILES

    @property
    def bytes_each(self) -> float:
        """Of memory, for each time that it was done."""
        return sum(self.mib) / len(self.mib) / self.count * _MIB

    def __str__(self) -> str:
        rounds = " and ".join(
            f"{mib:+.2f} MiB, {files:+.0f} files" for mib, files in zip(self.mib, self.files, strict=True)
        )
        return f"{self.deed}, {self.count} times a round: {rounds}; {self.bytes_each:,.0f} bytes each"


def added_by(deeds: Sequence[Deed], site: Site, rest: Rest) -> Iterator[Added]:
    """Do each deed in its rounds to the steady server of a site, on which there is no other load.

    Raises TimeoutError if the server does not come to rest.
    """
    for deed in deeds:
        count, samples = site.some(deed.count), []
        for _ in range(_ROUNDS):
            deed.do(site, count)
            if (sample := rest.sample()) is None:
                raise TimeoutError(f"the server does not come to rest after {deed.name}")
            samples.append(sample)
        mib, files = (
            tuple(getattr(after, name) - getattr(before, name) for before, after in pairwise(samples))
            for name in ("allocated_mib", "files")
        )
        yield Added(deed.name, count, mib, files, deed.known_bytes)


def _each(count, do):
    """So often, some at a time."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(do, range(count)))


def _ends_before_tls(site, count):
    def connect(number):
        with suppress(OSError), replace(access, ca=None).connect() as connection:
            if number % 2:
                connection.sendall(random.Random(number).randbytes(200))

    access = site.access(site.steady)
    _each(count, connect)


def _ends_after_tls(site, count):
    access = site.access(site.steady)
    _each(count, lambda _: access.connect().close())


def _garbage(site, count):
    access = site.access(site.steady)
    rngs = [random.Random(site.rng.getrandbits(32)) for _ in range(count)]
    _each(count, lambda number: send_garbage(access, rngs[number]))


def _channel_with_a_call(site, count):
    access = site.access(site.steady)

    def call(_):
        with access.channel() as channel:
            _read(channel, access, Request(image_count=1, seed=1))

    _each(count, call)


def _calls(request, metadata=None):
    """A deed of calls with `request(number)` on one channel, which may be refused."""

    def do(site, count):
        access = site.access(site.steady)
        with access.channel() as channel:
            stub = sampling_pb2_grpc.SamplingServiceStub(channel)
            for number in range(count):
                given = access.metadata if metadata is None else metadata(number)
                with suppress(grpc.RpcError):
                    list(stub.SampleBinaryImages(request(number), metadata=given))

    return do


def _read(channel, access, request):
    return list(
        sampling_pb2_grpc.SamplingServiceStub(channel).SampleBinaryImages(request, metadata=access.metadata)
    )


def _open_inference(site, count):
    access = site.access(site.steady)
    (method,) = (each for each in methods_of(access) if each.path == _INFER)
    with access.channel() as channel:
        stub = sampling_pb2_grpc.SamplingServiceStub(channel)
        wanted = sampling_pb2.GetModelRequest(name=site.fixed[0])
        manifest = stub.GetModel(wanted, metadata=access.metadata).model.model
        requests = [encoded(method.request, fields) for fields in valid_messages(_INFER, manifest)]
        call = channel.unary_unary(_INFER)
        for number in range(count):
            call(requests[number % len(requests)], metadata=access.metadata)


def _wrong_frames(site, count):
    access = site.access(site.steady)
    rules = [rule for rule in rules_of(access) if not rule.disturbs]
    Frames(access).send(list(islice(inputs(rules, site.rng.getrandbits(32)), count)))


def _fuzzed(site, count):
    """In a process of its own, as in the soak; what must hold is seen there."""
    access = site.access(site.steady)
    subprocess.run(
        [
            *(sys.executable, "-m", "tests.reliability.fuzzing", access.target, "--ca", str(access.ca)),
            *("--count", str(count), "--part", str(count), "--seed", str(site.rng.getrandbits(32))),
        ],
        cwd=ROOT,
        env={**os.environ, "BGAN_TOKEN": access.token},
        check=True,
        capture_output=True,
    )


def _fault(fault, whole):
    """A fault of the soak, as large as makes it `count` where it makes `whole` by itself."""
    return lambda site, count: fault(replace(site, scale=count / whole))


CALLS = Deed("small calls", 2_000, _calls(lambda number: Request(image_count=1, seed=number)))


def _over_http(site: Site, count: int) -> None:
    """Answers that are read, errors, and answers whose readers go in the middle."""
    access = site.access(site.steady)
    options = {"address": address_of(site.steady), "ca": access.ca, "token": access.token}
    with HttpClient((), timeout_seconds=CALL_SECONDS, **options) as client:
        for number in range(count):
            site.read(client, 20)
            client.fail(f"no-{number}")
            client.leave(site.fixed[0])


DEEDS = (
    CALLS,
    Deed("answers over HTTP, errors and readers who go", 300, _over_http),
    Deed("connections that end before TLS", 2_000, _ends_before_tls),
    Deed("connections that end after TLS", 1_000, _ends_after_tls),
    Deed("connections with garbage", 400, _garbage),
    Deed("channels with a call", 300, _channel_with_a_call),
    Deed("streams that are cancelled", 1_000, _fault(a_storm_of_cancels, 1_000), CANCELLED_BYTES),
    Deed(
        "calls with a wrong token",
        2_000,
        _calls(lambda _: Request(image_count=1), lambda number: [("authorization", f"Bearer bgan-{number:032x}")]),
    ),
    Deed("wrong requests", 2_000, _calls(lambda number: Request(model=f"no-{number}", image_count=1))),
    Deed("calls that are wrong below gRPC", 400, _wrong_frames, CANCELLED_BYTES),
    Deed("fuzzed inputs", 2_000, _fuzzed, FUZZED_BYTES),
    Deed("Open Inference calls", 1_000, _open_inference),
    Deed("streams at once", 200, _fault(many_streams_at_once, 500)),
    Deed("readers that stand still", 20, _fault(readers_stand_still, 20)),
    Deed("replaced models", 8, _fault(models_are_replaced, 8)),
    Deed(
        "rounds of bad model files", 2, lambda site, count: [bad_model_files(site) for _ in range(count)] and None
    ),
)
