"""`bgan serve` that says how much it has allocated and not freed, after it gave freed memory back.

python -m tests.reliability.watched_server none --models models --port 0

With `memory` or `files` in the place of `none` it keeps something for each call, to show that the gate of `leaks`
can fail.
"""

import os
import socket
import struct
import sys
import threading

import grpc
import onnxruntime

from bgan.trainer.cli.app import main
from tests.kit.memory import allocated_bytes

KINDS = ("memory", "files")
_BYTES_A_CALL = 5_243  # 10 MiB in the 2,000 calls of `control`
ALLOCATED = struct.Struct("<Q")
"""Bytes that the process holds from malloc: with PYTHONMALLOC=malloc those of Python objects too."""
_kept: list[object] = []


class _Leak(grpc.aio.ServerInterceptor):
    def __init__(self, kind):
        self._kind = kind

    async def intercept_service(self, continuation, handler_call_details):
        _kept.append(os.urandom(_BYTES_A_CALL) if self._kind == "memory" else os.open(os.devnull, os.O_RDONLY))
        return await continuation(handler_call_details)


def watched_socket(pid: int) -> str:
    """Where a watched process listens: who connects reads `ALLOCATED` when freed memory is given back."""
    return f"\0bgan-watched-{pid}"


def _tell_when_asked():
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(watched_socket(os.getpid()))
        listener.listen()
        while True:
            with listener.accept()[0] as connection:
                connection.send(ALLOCATED.pack(allocated_bytes()))


def _leak(kind):
    make_server = grpc.aio.server

    def make_leaking_server(*arguments, **options):
        interceptors = [*options.pop("interceptors", ()), _Leak(kind)]
        return make_server(*arguments, interceptors=interceptors, **options)

    grpc.aio.server = make_leaking_server


def _without_arenas():
    """Let onnxruntime give back what an inference took.

    A session keeps it otherwise, in steps of 1, 2, 4 and 8 MiB, up to the most that inferences at once have taken.
    That is bounded, but a model that was replaced holds up to 7 MiB less until it has been as busy.
    """
    make_options = onnxruntime.SessionOptions

    def make_plain_options():
        options = make_options()
        options.enable_cpu_mem_arena = False
        return options

    onnxruntime.SessionOptions = make_plain_options


if __name__ == "__main__":
    _without_arenas()
    if sys.argv[1] in KINDS:
        _leak(sys.argv[1])
    sys.argv[1] = "serve"
    threading.Thread(target=_tell_when_asked, daemon=True).start()
    main()
