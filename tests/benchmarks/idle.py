"""Clients that open streams without end and read nothing of them, or a message a second of the first.

    python -m tests.benchmarks.idle localhost:50051 --streams 1000

Prints {} when all are open, and stays until it is killed.
"""

import argparse
import time

import grpc

from bgan.v1 import sampling_pb2, sampling_pb2_grpc

_STREAMS_OF_A_CONNECTION = 10
_ENDLESS = 1_000_000_000


def main() -> None:
    """Open the streams, wait."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="host:port")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--read-slowly", action="store_true", help="read a message a second of the first stream")
    options = parser.parse_args()
    stubs = [_stub(options.target) for _ in range(-(-options.streams // _STREAMS_OF_A_CONNECTION))]
    requests = (
        sampling_pb2.SampleBinaryImagesRequest(image_count=_ENDLESS, seed=i) for i in range(options.streams)
    )
    calls = [stubs[i % len(stubs)].SampleBinaryImages(request) for i, request in enumerate(requests)]
    for call in calls:
        call.initial_metadata()  # the server has begun to answer, or this raises why not
    print("{}", flush=True)
    while True:
        time.sleep(1)
        if options.read_slowly:
            next(calls[0])


def _stub(target):
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
    return sampling_pb2_grpc.SamplingServiceStub(grpc.insecure_channel(target, options=options))


if __name__ == "__main__":
    main()
