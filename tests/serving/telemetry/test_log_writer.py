"""A log whose reader stands still, and what libraries write to stderr."""

import fcntl
import json
import os
import signal
import socket
import subprocess
from contextlib import contextmanager, suppress

import grpc
import pytest

from bgan.clients import SamplingClient
from bgan.serving.telemetry.log_writer import LogWriter
from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.kit.certificates import Authority
from tests.kit.cli import BGAN
from tests.kit.servers import free_port, server
from tests.kit.waiting import eventually

_PAGE = 4096
_LINES = 10_000


@contextmanager
def _small_pipe():
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PAGE)
    try:
        yield reading, writing
    finally:
        for end in (reading, writing):
            with suppress(OSError):
                os.close(end)


def _writer(descriptor):
    return LogWriter(descriptor, lambda count: f"dropped {count}\n")


def test_what_is_too_much_is_dropped_and_counted():
    with _small_pipe() as (reading, writing):
        writer = _writer(writing)
        for number in range(_LINES):
            writer.write(f"line {number}\n")  # nobody reads, and this goes on
        assert writer.dropped > 0
        kept, dropped = [], 0
        with open(reading, closefd=False) as lines:
            while len(kept) + dropped < _LINES:
                word, number = next(lines).split()
                if word == "line":
                    kept.append(int(number))
                else:
                    dropped += int(number)
    assert kept == sorted(kept)
    assert len(kept) + dropped == _LINES


def test_what_is_left_is_written_at_the_end():
    with _small_pipe() as (reading, writing):
        writer = _writer(writing)
        for number in range(100):
            writer.write(f"{number}\n")
        writer.stop()
        assert os.read(reading, _PAGE).decode().split() == [str(number) for number in range(100)]


def test_a_reader_that_is_gone_is_no_error():
    with _small_pipe() as (reading, writing):
        os.close(reading)
        writer = _writer(writing)
        writer.write("a\n")
        writer.stop()
        assert not writer._thread.is_alive()


def _lists_models(stub):
    with suppress(grpc.RpcError):  # a server listens before its models are loaded
        return bool(stub.ListModels(sampling_pb2.ListModelsRequest(), wait_for_ready=True, timeout=100).models)
    return False


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reader_of_the_log_that_stands_still_stops_nothing(small_models, workers):
    port = free_port()
    options = ("--models", small_models, "--port", port, "--workers", workers)
    with _small_pipe() as (_, writing):
        process = subprocess.Popen([str(each) for each in (BGAN, "serve", *options)], stderr=writing)
        try:
            with grpc.insecure_channel(f"localhost:{port}") as channel:
                stub = sampling_pb2_grpc.SamplingServiceStub(channel)
                eventually(lambda: _lists_models(stub), seconds=100)
                for _ in range(200):  # some 200 bytes of log each
                    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
                        stub.GetModel(sampling_pb2.GetModelRequest(name="nothing"), timeout=100)
            with SamplingClient(f"localhost:{port}") as client:
                assert len(next(client.sample_binary_images(image_count=3))) == 3
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()


def test_lines_of_libraries_are_lines_of_the_log(small_models, tmp_path):
    """A stranger makes gRPC's core write lines of its own to stderr, by speaking no TLS to a server of it."""
    certificate, key = Authority().issue("localhost")
    (tmp_path / "server.pem").write_bytes(certificate)
    (tmp_path / "server.key").write_bytes(key)
    tls = ("--tls-certificate", tmp_path / "server.pem", "--tls-key", tmp_path / "server.key")
    with server(small_models, "--log-format", "json", *tls) as process:
        with socket.create_connection(("127.0.0.1", process.port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with suppress(OSError):
                stranger.recv(1)
        eventually(lambda: "ssl_transport_security" in process.output())
        lines = [json.loads(line) for line in process.output().splitlines()]
    (line,) = [line for line in lines if line["logger"] == "stderr"]
    assert "ssl_transport_security" in line["message"]
    assert line["level"] == "INFO"
