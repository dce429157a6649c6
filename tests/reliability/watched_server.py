"""`bgan serve` that gives freed memory back when it is asked to, so that what it holds can be measured.

python -m tests.reliability.watched_server none --models models --port 0

With `memory` or `files` in the place of `none` it keeps something for each call, to show that the gate of `leaks`
can fail.
"""

import ctypes
import gc
import os
import socket
import sys
import threading

import grpc

from bgan.trainer.cli.app import main

KINDS = ("memory", "files")
_BYTES_A_CALL = 5_243  # 10 MiB in the 2,000 calls of `control`
_kept: list[object] = []


class _Leak(grpc.aio.ServerInterceptor):
    def __init__(self, kind):
        self._kind = kind

    async def intercept_service(self, continuation, handler_call_details):
        _kept.append(os.urandom(_BYTES_A_CALL) if self._kind == "memory" else os.open(os.devnull, os.O_RDONLY))
        return await continuation(handler_call_details)


def trim_socket(pid: int) -> str:
    """Where a watched process listens: who connects reads a byte when freed memory is given back."""
    return f"\0bgan-watched-{pid}"


def _trim_when_asked():
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(trim_socket(os.getpid()))
        listener.listen()
        while True:
            with listener.accept()[0] as connection:
                gc.collect()
                ctypes.CDLL(None).malloc_trim(0)
                connection.send(b"1")


def _leak(kind):
    make_server = grpc.aio.server

    def make_leaking_server(*arguments, **options):
        interceptors = [*options.pop("interceptors", ()), _Leak(kind)]
        return make_server(*arguments, interceptors=interceptors, **options)

    grpc.aio.server = make_leaking_server


if __name__ == "__main__":
    if sys.argv[1] in KINDS:
        _leak(sys.argv[1])
    sys.argv[1] = "serve"
    threading.Thread(target=_trim_when_asked, daemon=True).start()
    main()
