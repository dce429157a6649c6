"""A name of several addresses, as a headless service has it: calls take turns; each test is for both clients."""

import shutil
import signal
import sys
from contextlib import contextmanager

import grpc
import pytest

from bgan.clients import RetryPolicy, SamplingClient
from bgan.serving.models.engine import load_engine
from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.kit.clients import Blocking
from tests.kit.nameserver import name_server
from tests.kit.servers import free_port, server
from tests.kit.waiting import eventually

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is a loopback address on Linux"),
    pytest.mark.parametrize("make_client", [SamplingClient, Blocking], ids=["blocking", "asyncio"]),
]
PATIENT = RetryPolicy(attempts=200, initial_backoff_seconds=0.02, max_backoff_seconds=0.1)


@contextmanager
def two_servers(models, others, *options):
    """Two servers on one port of two addresses, and the target that means both."""
    port = free_port()
    with (
        server(models, "--host", "127.0.0.1", *options, port=port) as first,
        server(others, "--host", "127.0.0.2", *options, port=port) as second,
    ):
        yield first, second, f"ipv4:127.0.0.1:{port},127.0.0.2:{port}"


def revisions(client, calls):
    """Which servers answer calls in a row."""
    return {client.get_model().revision for _ in range(calls)}


def test_calls_take_turns(make_client, small_models, other_models):
    with (
        two_servers(small_models, other_models) as (_, second, target),
        make_client(target, retry=PATIENT) as client,
    ):
        eventually(lambda: len(revisions(client, 2)) == 2)
        second.stop(signal.SIGKILL)
        revisions(client, 20)  # none fails
        assert len(revisions(client, 10)) == 1
        with server(other_models, "--host", "127.0.0.2", port=second.port):
            eventually(lambda: len(revisions(client, 2)) == 2)


def test_a_stream_resumes_at_the_other_server(make_client, small_models, tmp_path):
    """Each server has one of two streams; when a server is killed, its stream resumes at the other."""
    (tmp_path / "twin").mkdir()
    for copy in ("sbn.onnx", "twin/1.onnx"):  # the same model, and another by which to know the server
        shutil.copy(small_models / "sbn.onnx", tmp_path / copy)
    alone = load_engine(small_models / "sbn.onnx")

    def stream(client, seed):
        next_index = 0
        for batch in client.sample_binary_images(image_count=20_000, seed=seed, model="sbn", batch_size=50):
            assert batch.first_index == next_index
            assert batch.packed_images.tobytes() == alone.sample(seed, next_index, len(batch)).packed_images
            next_index = batch.next_index
            yield next_index

    with (
        two_servers(small_models, tmp_path) as (first, _, target),
        make_client(target, retry=PATIENT, timeout_seconds=None) as client,
    ):
        eventually(lambda: len({len(client.list_models()) for _ in range(2)}) == 2)
        streams = [stream(client, seed) for seed in (1, 2)]
        assert [next(one) for one in streams] == [50, 50]
        first.stop(signal.SIGKILL)
        for one in streams:
            *_, last = one
            assert last == 20_000


def test_a_server_that_a_name_gets_later_is_found(make_client, small_models, other_models):
    """Connections end when they are old, names are looked up again then, and calls in flight are not cut."""
    age = ("--max-connection-age-seconds", 0.2)
    with (
        name_server("127.0.0.1") as names,
        two_servers(small_models, other_models, *age) as (first, _, _),
        make_client(f"dns://127.0.0.1:{names.port}/bgan.test:{first.port}", retry=PATIENT) as client,
        grpc.insecure_channel(f"127.0.0.1:{first.port}") as channel,
    ):
        request = sampling_pb2.SampleBinaryImagesRequest(image_count=10**9)
        stream = sampling_pb2_grpc.SamplingServiceStub(channel).SampleBinaryImages(request)
        next_index = next(stream).image_count
        eventually(
            lambda: len(revisions(client, 4)) == 1 and names.lookups > 8
        )  # by itself gRPC asks twice a minute
        names.addresses = ("127.0.0.1", "127.0.0.2")
        eventually(lambda: len(revisions(client, 2)) == 2)
        for _ in range(20):
            batch = next(stream)
            assert batch.first_index == next_index
            next_index += batch.image_count
        stream.cancel()
