"""More calls than there are slots, readers that stand still, callers that leave, and servers that hang."""

import os
import signal
import threading
import time
from functools import partial
from itertools import repeat
from pathlib import Path

import grpc
import pytest

import bgan.clients._base
from bgan.clients import (
    DeadlineExceededError,
    RetryPolicy,
    SamplingClient,
    ServerOverloadedError,
    ServerUnavailableError,
)
from bgan.serving.models.engine import load_engine
from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.kit.clients import Blocking
from tests.kit.proxies import breaking_proxy, digest_of, resumed
from tests.kit.servers import server
from tests.kit.waiting import eventually
from tests.reliability.metrics import scrape

_eventually = partial(eventually, seconds=100)

Request = sampling_pb2.SampleBinaryImagesRequest
ONCE = RetryPolicy(attempts=1)
PATIENT = RetryPolicy(attempts=200, initial_backoff_seconds=0.02, max_backoff_seconds=0.1)
ENDLESS = {"image_count": 10**9, "seed": 1, "include_probabilities": True}
CLIENTS = pytest.mark.parametrize("make_client", [SamplingClient, Blocking], ids=["blocking", "asyncio"])


def _wait_for_gauge(process, name, value):
    _eventually(lambda: scrape(process)[name,] == value)


def _is_answered(client):
    try:
        return len(next(client.sample_binary_images(image_count=1, timeout_seconds=60))) == 1
    except ServerOverloadedError:
        return False


def test_calls_wait_in_turn_and_more_are_refused(small_models):
    options = ("--max-streams", 1, "--max-queued-calls", 1, "--metrics-port", 0)
    with server(small_models, *options) as process, SamplingClient(process.target, retry=ONCE) as client:
        running = client.sample_binary_images(**ENDLESS)
        next(running)
        with pytest.raises(DeadlineExceededError):  # it waits within its deadline, and then its slot is free again
            next(client.sample_binary_images(image_count=1, timeout_seconds=0.3))
        _wait_for_gauge(process, "bgan_queued_calls", 0)
        answers = []
        waiting = threading.Thread(
            target=lambda: answers.extend(client.sample_binary_images(image_count=3, seed=1, timeout_seconds=100))
        )
        waiting.start()
        _wait_for_gauge(process, "bgan_queued_calls", 1)
        with pytest.raises(ServerOverloadedError, match="1 calls are running and 1 waiting"):
            next(client.sample_binary_images(image_count=1))
        assert answers == []
        running.close()
        waiting.join()
        assert len(answers[0]) == 3
        assert len(next(client.sample_binary_images(image_count=3))) == 3


def test_a_caller_who_has_all_that_he_may_have_leaves_slots_to_others(small_models):
    options = ("--max-streams", 9, "--max-streams-per-caller", 2)
    with (
        server(small_models, *options) as process,
        breaking_proxy(process.port, repeat(None), source="127.0.0.2") as other,
        SamplingClient(process.target, retry=ONCE) as client,
        SamplingClient(other.target, retry=ONCE) as neighbour,
    ):
        running = [client.sample_binary_images(**ENDLESS) for _ in range(2)]
        for stream in running:
            next(stream)
        with pytest.raises(ServerOverloadedError, match="2 calls of this caller are open") as caught:
            next(client.sample_binary_images(image_count=1))
        assert caught.value.retry_after_seconds == 1
        assert len(next(neighbour.sample_binary_images(image_count=1))) == 1
        running[0].close()
        _eventually(lambda: _is_answered(client))


def test_a_reader_that_stands_still_is_ended_and_can_go_on(small_models):
    options = ("--stalled-write-seconds", 4, "--max-streams", 1, "--max-queued-calls", 0)
    with server(small_models, *options) as process, grpc.insecure_channel(process.target) as channel:
        stub = sampling_pb2_grpc.SamplingServiceStub(channel)
        stalled = stub.SampleBinaryImages(Request(batch_size=200, **ENDLESS))
        received = next(stalled).image_count
        with SamplingClient(process.target, retry=ONCE) as client:
            _eventually(lambda: _is_answered(client))  # its slot is free
        with pytest.raises(grpc.RpcError) as caught:
            for response in stalled:
                assert response.first_index == received
                received += response.image_count
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "not read for too long" in caught.value.details()
        assert dict(caught.value.trailing_metadata())["bgan-next-index"] == str(received)
        assert "Traceback" not in process.output()


@CLIENTS
def test_a_client_that_pauses_for_long_misses_nothing(make_client, small_models, caplog):
    options = ("--stalled-write-seconds", 1, "--max-streams", 1, "--max-queued-calls", 0)
    request = {"image_count": 16_000, "seed": 4, "batch_size": 200, "include_probabilities": True}
    packed = b""
    with (
        server(small_models, *options) as process,
        SamplingClient(process.target, retry=ONCE) as other,
        make_client(process.target, retry=PATIENT, timeout_seconds=None) as client,
    ):
        for batch in client.sample_binary_images(**request):
            packed += batch.packed_images.tobytes()
            if batch.first_index == 200:
                _eventually(lambda: _is_answered(other))  # its slot is free
    assert packed == load_engine(small_models / "sbn.onnx").sample(4, 0, 16_000).packed_images
    assert resumed(caplog)


def _cpu_seconds(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("ends_by", ["cancel", "deadline"])
def test_work_ends_with_the_call(ends_by, models):
    """Calls whose every batch takes long: when all are gone the server stands still, and has all its slots."""
    options = ("--max-streams", 20, "--max-queued-calls", 0, "--metrics-port", 0)
    with server(models, *options) as process, grpc.insecure_channel(process.target) as channel:
        stub = sampling_pb2_grpc.SamplingServiceStub(channel)
        request = Request(model="cnn-sbn", image_count=10**9, batch_size=2000)
        calls = [stub.SampleBinaryImages(request, timeout=2 if ends_by == "deadline" else None) for _ in range(20)]
        if ends_by == "cancel":
            _wait_for_gauge(process, "bgan_streams", 20)
        for call in calls:
            call.cancel() if ends_by == "cancel" else _end(call)
        used = -1.0

        def stands_still():
            nonlocal used
            before, used = used, _cpu_seconds(process.process)
            time.sleep(0.5)
            return _cpu_seconds(process.process) - used < 0.05 and used - before < 0.05

        _eventually(stands_still)
        with SamplingClient(process.target, retry=ONCE) as client:
            streams = [client.sample_binary_images(**ENDLESS) for _ in range(20)]
            assert all(len(next(stream)) for stream in streams)


def _end(call):
    with pytest.raises(grpc.RpcError) as caught:
        for _ in call:
            pass
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


@CLIENTS
def test_a_server_that_hangs_is_noticed(make_client, small_models, monkeypatch, caplog):
    monkeypatch.setattr(bgan.clients._base, "KEEPALIVE_SECONDS", 0.5)
    monkeypatch.setattr(bgan.clients._base, "KEEPALIVE_TIMEOUT_SECONDS", 1.0)
    with server(small_models) as process:
        expected = digest_of(SamplingClient(process.target).sample_binary_images(image_count=20_000, seed=2))

        def continue_when_noticed():
            _eventually(lambda: resumed(caplog))
            process.process.send_signal(signal.SIGCONT)

        with make_client(process.target, retry=PATIENT, timeout_seconds=None) as client:

            def batches():
                for batch in client.sample_binary_images(image_count=20_000, seed=2, include_probabilities=True):
                    if batch.first_index == 0:
                        process.process.send_signal(signal.SIGSTOP)
                        threading.Thread(target=continue_when_noticed).start()
                    yield batch

            assert digest_of(batches()) == expected
    assert resumed(caplog)


def test_calls_that_wait_are_sent_away_when_the_server_stops(small_models):
    options = ("--max-streams", 1, "--grace-seconds", 30, "--metrics-port", 0)
    with server(small_models, *options) as process, SamplingClient(process.target, retry=ONCE) as client:
        running = client.sample_binary_images(**ENDLESS)
        next(running)
        errors = []

        def wait():
            try:
                list(client.sample_binary_images(image_count=3, timeout_seconds=None))
            except ServerUnavailableError as error:
                errors.append(str(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        _wait_for_gauge(process, "bgan_queued_calls", 1)
        process.process.send_signal(signal.SIGTERM)
        waiting.join()
        assert "the server is stopping" in errors[0]
        running.close()
        assert process.process.wait(60) == 0
