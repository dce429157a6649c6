"""A load of small calls from a process of its own: N callers, each with one call at a time.

    python -m tests.benchmarks.load localhost:50051 --callers 32 --seconds 3 --pid SERVER_PID

Prints one line of JSON: calls a second, latencies in milliseconds, and what a call cost the server and this
process in milliseconds of CPU. The load is to cost little: requests are built before, answers stay bytes, and the
stub takes one answer and the status at once. On the wire that is the same call as a stream of one answer, but it
costs half of what reading a stream with grpc.aio does; --streaming reads it as a stream.
"""

import argparse
import asyncio
import json
import os
import statistics
import struct
import time
from itertools import cycle, islice
from pathlib import Path

import grpc
import uvloop

from .processes import cpu_seconds

_SAMPLE = "/bgan.v1.SamplingService/SampleBinaryImages"
_SEEDS = range(2**40, 2**40 + 20_000)  # as varints they are of one length, and so are the answers


def main() -> None:
    """Load a server, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="host:port")
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--channels", type=int, default=1, help="connections that the callers share")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--warm-up-seconds", type=float, default=0.5)
    parser.add_argument("--model", default="", help="a model's name; by default the server's own choice")
    parser.add_argument("--pid", type=int, help="the server's process, to tell what a call costs it")
    parser.add_argument("--least-bytes", type=int, default=98, help="bytes that an answer has at least")
    parser.add_argument("--streaming", action="store_true", help="read each answer as a stream")
    parser.add_argument("--method", default=_SAMPLE, help="the path of another method")
    parser.add_argument("--requests", type=Path, help="the requests of that method, each after its length (<I)")
    print(json.dumps(uvloop.run(_load(parser.parse_args()))))


async def _load(options):
    requests = cycle(_read(options.requests) if options.requests else _sample_requests(options.model))
    channels = [
        grpc.aio.insecure_channel(options.target, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(options.channels)
    ]
    form = _streamed if options.streaming else _unary
    calls = [form(channel, options.method) for channel in channels]
    length = len(await _streamed(channels[0], options.method)(next(requests)))
    assert length >= options.least_bytes, f"an answer has {length} bytes"

    async def run(seconds):
        latencies = []
        end = time.perf_counter() + seconds
        shared = islice(cycle(calls), options.callers)
        await asyncio.gather(*(_caller(call, requests, length, end, latencies) for call in shared))
        return latencies

    await run(options.warm_up_seconds)
    pids = [os.getpid(), *([options.pid] if options.pid else [])]
    start, before = time.perf_counter(), [cpu_seconds(pid) for pid in pids]
    latencies = await run(options.seconds)
    elapsed, after = time.perf_counter() - start, [cpu_seconds(pid) for pid in pids]
    for channel in channels:
        await channel.close()
    spent = [1e3 * (late - early) / len(latencies) for early, late in zip(before, after, strict=True)]
    return _figures(latencies, elapsed, spent)


async def _caller(call, requests, length, end, latencies):
    now = time.perf_counter()
    while now < end:
        answer = await call(next(requests))
        if len(answer) != length:
            raise RuntimeError(f"an answer has {len(answer)} bytes, the first one had {length}")
        start, now = now, time.perf_counter()
        latencies.append(now - start)


def _streamed(channel, path):
    stub = channel.unary_stream(path, request_serializer=None, response_deserializer=None)

    async def call(request):
        stream = stub(request)
        answer = await stream.read()
        if answer is grpc.aio.EOF or await stream.read() is not grpc.aio.EOF:
            raise RuntimeError(
                f"not one answer, but another number: {await stream.code()} {await stream.details()}"
            )
        return answer

    return call


def _unary(channel, path):
    return channel.unary_unary(path, request_serializer=None, response_deserializer=None)


def _sample_requests(model):
    from bgan.v1 import sampling_pb2

    return [
        sampling_pb2.SampleBinaryImagesRequest(model=model, image_count=1, seed=seed).SerializeToString()
        for seed in _SEEDS
    ]


def _read(path):
    content, requests = path.read_bytes(), []
    while content:
        (length,) = struct.unpack_from("<I", content)
        requests.append(content[4 : 4 + length])
        content = content[4 + length :]
    return requests


def _figures(latencies, elapsed, spent):
    percentiles = statistics.quantiles(latencies, n=1000, method="inclusive")
    return {
        "calls": len(latencies),
        "calls_per_second": len(latencies) / elapsed,
        "p50_ms": 1e3 * percentiles[499],
        "p99_ms": 1e3 * percentiles[989],
        "mean_ms": 1e3 * statistics.fmean(latencies),
        "load_cpu_ms": spent[0],
        "server_cpu_ms": spent[1] if len(spent) > 1 else None,
    }


if __name__ == "__main__":
    main()
