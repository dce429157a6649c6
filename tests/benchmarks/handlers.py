"""Servers to compare with, in processes of their own, with the method shape of bgan's.

`plain` draws the noise and runs one inference a call, as one would write it first; `bare` returns 98 ready bytes.
Each is there with grpcio's thread pool and with grpc.aio. Prints {"port": ...} when it is ready.
"""

import argparse
import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from bgan.serving.models.engine import load_engine
from bgan.v1 import sampling_pb2, sampling_pb2_grpc

_THREADS = 32  # as many as callers
_IMAGE_BYTES = 98
_NO_REUSE = [("grpc.so_reuseport", 0)]


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("handler", choices=("plain", "bare"))
    parser.add_argument("--aio", action="store_true")
    parser.add_argument("--model", type=Path, help="the .onnx file of the plain handler")
    options = parser.parse_args()
    serve = _serve_aio if options.aio else _serve_sync
    serve(_plain(load_engine(options.model)) if options.handler == "plain" else None)


def _plain(engine):
    def answer(request):
        images = engine.sample(request.seed, request.first_index, 1)
        return sampling_pb2.SampleBinaryImagesResponse(
            model=engine.manifest.name,
            revision=engine.revision,
            seed=request.seed,
            first_index=request.first_index,
            image_count=1,
            image_shape=engine.manifest.image_shape,
            packed_images=images.packed_images,
        )

    return answer


def _serve_sync(answer):
    class Servicer(sampling_pb2_grpc.SamplingServiceServicer):
        def SampleBinaryImages(self, request, context):  # noqa: N802
            yield answer(request)

    def bare(request, context):
        yield bytes(_IMAGE_BYTES)

    server = grpc.server(ThreadPoolExecutor(_THREADS), options=_NO_REUSE)
    if answer:
        sampling_pb2_grpc.add_SamplingServiceServicer_to_server(Servicer(), server)
    else:
        server.add_generic_rpc_handlers([_raw(bare)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"port": port}), flush=True)
    server.wait_for_termination()


def _serve_aio(answer):
    class Servicer(sampling_pb2_grpc.SamplingServiceServicer):
        async def SampleBinaryImages(self, request, context):  # noqa: N802
            yield answer(request)

    async def bare(request, context):
        yield bytes(_IMAGE_BYTES)

    async def serve():
        server = grpc.aio.server(options=_NO_REUSE)
        if answer:
            sampling_pb2_grpc.add_SamplingServiceServicer_to_server(Servicer(), server)
        else:
            server.add_generic_rpc_handlers([_raw(bare)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(json.dumps({"port": port}), flush=True)
        await server.wait_for_termination()

    asyncio.run(serve())


def _raw(handler):
    method = grpc.unary_stream_rpc_method_handler(handler)
    return grpc.method_handlers_generic_handler("bgan.v1.SamplingService", {"SampleBinaryImages": method})


if __name__ == "__main__":
    main()
