"""Listeners, which outlive whatever a stranger sends, and a system that lacks files for a moment."""

import resource
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from bgan.clients import RetryPolicy, SamplingClient
from bgan.serving.models.engine import load_engine
from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.kit.http2 import Peer
from tests.kit.servers import server
from tests.kit.waiting import eventually

NOT_UTF8 = b"/\xff"


def _answer(process):
    """The bits of a small call on a connection of its own, tried once."""
    with SamplingClient(process.target, retry=RetryPolicy(attempts=1)) as client:
        batches = client.sample_binary_images(image_count=3, seed=1)
        return b"".join(batch.packed_images.tobytes() for batch in batches)


def _listening(process):
    lines = [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()]
    return sum(fields[1].endswith(f":{process.port:04X}") and fields[3] == "0A" for fields in lines)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_path_that_is_no_utf8_ends_no_listener_no_connection_and_no_call(small_models, workers):
    expected = load_engine(small_models / "sbn.onnx").sample(1, 0, 3).packed_images
    with server(small_models, "--workers", workers) as process, ExitStack() as stack:
        bystanders = [stack.enter_context(Peer(process.port)) for _ in range(6)]
        channels = [stack.enter_context(grpc.insecure_channel(process.target)) for _ in range(6)]
        stubs = [sampling_pb2_grpc.SamplingServiceStub(channel) for channel in channels]
        request = sampling_pb2.SampleBinaryImagesRequest(image_count=10**9, seed=1, batch_size=50)
        streams = [stub.SampleBinaryImages(request) for stub in stubs]
        sent = [next(stream).image_count for stream in streams]
        for count in range(1, 11):
            with Peer(process.port) as stranger:
                stranger.call(NOT_UTF8)
                eventually(lambda count=count: process.output().count("is open again") == count)
            assert _answer(process) == expected
        assert _listening(process) == 4 * workers
        assert not any(bystander.is_told_to_go() for bystander in bystanders)
        for stream, index in zip(streams, sent, strict=True):
            assert next(stream).first_index == index
        assert "Traceback" not in process.output()
        assert "never retrieved" not in process.output()
        for stream in streams:
            stream.cancel()
        assert process.stop() == 0


def test_an_unknown_path_is_answered_after_one_that_is_no_utf8(small_models):
    with server(small_models) as process, grpc.insecure_channel(process.target) as channel:
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/none/Such")(b"", timeout=60)
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
            with Peer(process.port) as stranger:
                stranger.call(NOT_UTF8)
                eventually(lambda: "is open again" in process.output())


# SIGUSR1 ends all of grpc.aio's main tasks, as an error that nobody has thought of would.
_LOSING = """
import asyncio, signal

def lose(*_):
    for task in asyncio.all_tasks(asyncio.get_running_loop()):
        if task.get_coro().__qualname__ == "AioServer._server_main_loop":
            task.cancel()

signal.signal(signal.SIGUSR1, lose)
from bgan.trainer.cli.app import main
main()
"""


def test_all_listeners_are_opened_once_there_are_files_for_them(small_models):
    with server(small_models, program=(sys.executable, "-c", _LOSING, "serve")) as process:
        pid, before = process.process.pid, resource.prlimit(process.process.pid, resource.RLIMIT_NOFILE)
        expected = _answer(process)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, before[1]))
        process.process.send_signal(signal.SIGUSR1)
        eventually(lambda: "Too many open files; trying again" in process.output())
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        eventually(lambda: process.output().count("is open again") == 8)
        assert _listening(process) == 4
        assert _answer(process) == expected
        assert process.stop() == 0


@pytest.mark.long
def test_a_process_whose_listener_cannot_be_opened_ends_with_an_error(small_models):
    with server(small_models, program=(sys.executable, "-c", _LOSING, "serve")) as process:
        _, most = resource.prlimit(process.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.process.pid, resource.RLIMIT_NOFILE, (1, most))
        process.process.send_signal(signal.SIGUSR1)
        assert process.process.wait(60) != 0  # without files, not even the event loop can be closed
        assert "Too many open files; trying again" in process.output()
