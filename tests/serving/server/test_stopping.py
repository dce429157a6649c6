"""Servers that stop while calls go on: the lame-duck time, the grace period, and rolling restarts."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bgan.clients import RetryPolicy, SamplingClient
from bgan.serving.models.engine import load_engine
from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.kit.cli import BGAN
from tests.kit.clients import Blocking
from tests.kit.servers import ServerProcess, restarting_server, server
from tests.kit.waiting import eventually, unreadable

Request = sampling_pb2.SampleBinaryImagesRequest
SERVICE = "bgan.v1.SamplingService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
PATIENT = RetryPolicy(attempts=500, initial_backoff_seconds=0.02, max_backoff_seconds=0.2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_lame_duck_is_unhealthy_and_answers(small_models, workers):
    options = ("--lame-duck-seconds", 300, "--grace-seconds", 0, "--workers", workers)
    with server(small_models, *options) as process, grpc.insecure_channel(process.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watches = [
            health.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", SERVICE, f"{SERVICE}/sbn")
        ]
        assert [next(watch).status for watch in watches] == [SERVING] * 3
        process.process.send_signal(signal.SIGTERM)
        assert [next(watch).status for watch in watches] == [NOT_SERVING] * 3
        with SamplingClient(process.target, retry=RetryPolicy(attempts=1)) as client:
            assert sum(map(len, client.sample_binary_images(image_count=2_000))) == 2_000
            assert client.get_model().name == "sbn"
        assert process.process.poll() is None
        children = Path(f"/proc/{process.process.pid}/task/{process.process.pid}/children").read_text()
        for pid in children.split():
            os.kill(int(pid), signal.SIGKILL)  # workers would play on without their supervisor


@pytest.mark.skipif(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, reason="under nohup it stays ignored")
def test_a_terminal_that_is_closed_stops_a_server_as_sigterm_does(small_models):
    with server(small_models, "--workers", 2, "--grace-seconds", 60) as process:
        children = Path(f"/proc/{process.process.pid}/task/{process.process.pid}/children").read_text()
        with SamplingClient(process.target) as client:
            stream = client.sample_binary_images(image_count=2_000, batch_size=1)
            received = len(next(stream))
            for pid in (*map(int, children.split()), process.process.pid):
                os.kill(pid, signal.SIGHUP)
            assert received + sum(map(len, stream)) == 2_000
        assert process.process.wait(60) == 0
        assert process.output().endswith(" INFO stopped\n")


def test_the_lame_duck_time_ends(small_models):
    options = ("--lame-duck-seconds", 1, "--grace-seconds", 1)
    with server(small_models, *options) as process, grpc.insecure_channel(process.target) as channel:
        stub = sampling_pb2_grpc.SamplingServiceStub(channel)
        call = stub.SampleBinaryImages(Request(image_count=10**9, seed=1, batch_size=50))
        received = next(call).image_count
        process.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            for response in call:
                assert response.first_index == received
                received += response.image_count
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert dict(caught.value.trailing_metadata())["bgan-next-index"] == str(received)
        assert process.process.wait(60) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_ends_a_server_that_waits_for_a_file(small_models, tmp_path, workers):
    (tmp_path / "sbn.onnx").write_bytes((small_models / "sbn.onnx").read_bytes())
    command = [BGAN, "serve", "--models", tmp_path, "--port", "0", "--workers", str(workers)]
    with unreadable(tmp_path / "sbn.onnx"), (tmp_path / "log").open("w") as log:
        with subprocess.Popen(command, stderr=log) as process:
            eventually(lambda: (tmp_path / "log").read_text().count("loading the models") == workers)
            process.send_signal(signal.SIGTERM)
            assert process.wait(40) == 0  # nobody waits for a file any longer than 45 seconds
        assert "still not stopped" not in (tmp_path / "log").read_text()


def test_a_server_that_cannot_start_does_not_play_lame_duck(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"broken")
    with pytest.raises(AssertionError, match="the server ended with 1"):
        ServerProcess(tmp_path, "--lame-duck-seconds", 3600)


@pytest.mark.long
def test_a_rolling_restart_under_load_loses_and_repeats_no_image(small_models):
    """Two servers, one after the other stopped by SIGTERM and started again, twice, under streams and calls."""
    options = ("--lame-duck-seconds", 0.3, "--grace-seconds", 0.6)
    alone, done, wrong = load_engine(small_models / "sbn.onnx"), threading.Event(), []

    def stream(make_client, targets, seed, batch_size):
        """Streams until all restarts are over, each checked image by image."""
        with make_client(targets, retry=PATIENT, timeout_seconds=None) as client:
            while not done.is_set():
                next_index, count = 1_000 * seed, 6_000
                for batch in client.sample_binary_images(
                    image_count=count, seed=seed, first_index=next_index, batch_size=batch_size
                ):
                    assert batch.first_index == next_index
                    assert (
                        batch.packed_images.tobytes() == alone.sample(seed, next_index, len(batch)).packed_images
                    )
                    next_index = batch.next_index
                assert next_index == 1_000 * seed + count

    def checked(*arguments):
        try:
            stream(*arguments)
        except BaseException as error:
            wrong.append(error)

    with restarting_server(small_models, *options) as first, restarting_server(small_models, *options) as second:
        loads = [
            (SamplingClient, first.target, 1, 50),
            (Blocking, second.target, 2, 200),
            (SamplingClient, [first.target, second.target], 3, 100),
            (Blocking, [first.target, second.target], 4, 16),
        ]
        threads = [threading.Thread(target=checked, args=load) for load in loads]
        for thread in threads:
            thread.start()
        for process in (first, second, first, second):
            time.sleep(0.5)
            assert process.stop(signal.SIGTERM) == 0
            process.start(small_models)
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []
