"""`bgan serve` with a leak of choice, to show that the gate of `leaks` can fail: for each call it keeps something.

python -m tests.reliability.leaking_server memory --models models --port 0
"""

import os
import sys

import grpc

from bgan.trainer.cli.app import main

KINDS = ("memory", "files")
_BYTES_A_CALL = 10_000
_kept: list[object] = []


class _Leak(grpc.aio.ServerInterceptor):
    def __init__(self, kind):
        self._kind = kind

    async def intercept_service(self, continuation, handler_call_details):
        _kept.append(os.urandom(_BYTES_A_CALL) if self._kind == "memory" else os.open(os.devnull, os.O_RDONLY))
        return await continuation(handler_call_details)


def _leak(kind):
    make_server = grpc.aio.server

    def make_leaking_server(*arguments, **options):
        interceptors = [*options.pop("interceptors", ()), _Leak(kind)]
        return make_server(*arguments, interceptors=interceptors, **options)

    grpc.aio.server = make_leaking_server


if __name__ == "__main__":
    _leak(sys.argv[1])
    sys.argv[1] = "serve"
    main()
