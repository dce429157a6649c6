"""Connections of strangers: how many there may be, which go, and that others get in."""

import math
from itertools import repeat
from pathlib import Path

import pytest
from tritonclient.grpc import service_pb2

from bgan.clients import SamplingClient
from bgan.v1 import sampling_pb2
from tests.kit.cli import BGAN
from tests.kit.http2 import Http2Connection
from tests.kit.proxies import breaking_proxy
from tests.kit.servers import server
from tests.kit.waiting import eventually

SAMPLE = "/bgan.v1.SamplingService/SampleBinaryImages"
INFER = "/inference.GRPCInferenceService/ModelInfer"
LIST = "/bgan.v1.SamplingService/ListModels"
WATCH = "/grpc.health.v1.Health/Watch"
ENDLESS = sampling_pb2.SampleBinaryImagesRequest(
    image_count=10**9, seed=1, batch_size=1000, include_probabilities=True
).SerializeToString()


@pytest.fixture
def strangers():
    """Makes connections, which it closes."""
    made = []

    def make(port, count, **options):
        made.extend(Http2Connection(port, **options) for _ in range(count))
        return made[-count:]

    yield make
    for connection in made:
        connection.close()


def _count_closed(connections):
    return sum(connection.is_closed for connection in connections)


def _is_answered(target):
    with SamplingClient(target) as client:
        return len(next(client.sample_binary_images(image_count=1))) == 1


def test_the_longest_unused_connections_of_an_address_make_room(small_models, strangers):
    with (
        server(small_models, "--max-connections-per-address", 8) as process,
        breaking_proxy(process.port, repeat(None), source="127.0.0.2") as proxy,
        SamplingClient(proxy.target) as client,
    ):
        images = client.sample_binary_images(image_count=10**9, batch_size=100)
        next(images)  # the oldest connection, which is in use
        others = strangers(process.port, 3)
        # Those that are seen at one look are of one age, so the older ones are seen before there are others.
        older = strangers(process.port, 12, source="127.0.0.2")
        for connection in older:
            connection.call(1, WATCH, b"")  # who watches the health does not use his connection
        eventually(lambda: _count_closed(older) == 5)
        newer = strangers(process.port, 7, source="127.0.0.2")
        for connection in newer:
            connection.call(1, WATCH, b"")
        eventually(lambda: _count_closed(older) == 12)
        assert _count_closed(newer) == 0
        assert _is_answered(proxy.target)
        assert len(next(images)) == 100
        assert _count_closed(others) == 0
        images.close()


def test_all_addresses_together_are_bounded(small_models, strangers):
    with server(small_models, "--max-connections", 16) as process:
        connections = [
            connection
            for number in range(20)
            for connection in strangers(process.port, 1, source=f"127.0.1.{number}")
        ]
        eventually(lambda: _count_closed(connections) >= 4)  # more if one listener got many more than another
        assert _is_answered(process.target)
        assert "Traceback" not in process.output()


def test_workers_share_the_bounds(small_models, strangers):
    with server(small_models, "--max-connections-per-address", 8, "--workers", 2) as process:
        connections = strangers(process.port, 60)
        eventually(lambda: _count_closed(connections) >= 60 - 8)
        assert _is_answered(process.target)


def test_files_stay_in_reserve(small_models, strangers):
    limited = ("sh", "-c", 'ulimit -n 400; exec "$@"', "sh", BGAN, "serve")
    with server(small_models, program=limited) as process:
        for number in range(1, 6):
            strangers(process.port, 80, source=f"127.0.2.{number}")
            assert _is_answered(process.target)
            assert len(list(Path(f"/proc/{process.process.pid}/fd").iterdir())) < 400
        assert "Too many open files" not in process.output()


@pytest.mark.long
def test_a_connection_that_does_not_acknowledge_settings_is_closed(small_models, strangers):
    """Until it does, gRPC takes 16 MiB of metadata from it."""
    with server(small_models) as process:
        (silent,) = strangers(process.port, 1, acknowledges=False)
        (other,) = strangers(process.port, 1)
        eventually(lambda: silent.is_closed)
        assert not other.is_closed


def test_a_connection_whose_stalled_streams_take_no_end_is_closed(small_models, strangers):
    options = ("--stalled-write-seconds", 1, "--log-calls", "all")
    with server(small_models, *options) as process:
        (unread,) = strangers(process.port, 1, window=0)
        (other,) = strangers(process.port, 1)
        for stream in (1, 3, 5):
            unread.call(stream, SAMPLE, ENDLESS)
        eventually(lambda: unread.is_closed)
        assert process.output().count("UNAVAILABLE") >= 1
        assert not other.is_closed
        assert "Traceback" not in process.output()


def test_so_is_one_whose_inferences_are_not_read(small_models, strangers):
    with server(small_models, "--stalled-write-seconds", 1, "--log-calls", "all") as process:
        with SamplingClient(process.target) as client:
            (model,) = client.list_models()
        request = service_pb2.ModelInferRequest(model_name=model.name)
        latents, uniforms = [1, model.latent_size], [1, *model.image_shape]
        for name, shape in (("latents", latents), ("uniforms", uniforms)):
            request.inputs.add(name=name, datatype="FP32", shape=shape)
            request.raw_input_contents.append(bytes(4 * math.prod(shape)))
        (unread,) = strangers(process.port, 1, window=0)
        for stream in (1, 3, 5):
            unread.call(stream, INFER, request.SerializeToString())
        eventually(lambda: unread.is_closed)
        eventually(lambda: process.output().count("ModelInfer") == 3)
        assert "UNAVAILABLE" in process.output()
        assert "Traceback" not in process.output()


def test_so_is_one_whose_small_answers_are_not_read(small_models, strangers):
    """They are sent with their ends, and without a slot; their calls are recorded as what they came to."""
    options = ("--stalled-write-seconds", 1, "--max-streams", 1, "--max-queued-calls", 0, "--log-calls", "all")
    one = sampling_pb2.SampleBinaryImagesRequest(image_count=1, seed=1).SerializeToString()
    with server(small_models, *options) as process:
        (unread,) = strangers(process.port, 1, window=0)
        for stream, path, request in ((1, LIST, b""), (3, SAMPLE, one), (5, LIST, b"")):
            unread.call(stream, path, request)
        eventually(lambda: _is_answered(process.target))
        eventually(lambda: unread.is_closed)
        eventually(lambda: process.output().count(" UNAVAILABLE in ") == 3)
        assert "Traceback" not in process.output()


@pytest.mark.parametrize("methods", [[WATCH], [WATCH, SAMPLE]], ids=["watches", "unfinished"])
def test_calls_of_an_address_are_bounded_over_all_its_connections(small_models, strangers, methods):
    options = ("--max-streams", 4, "--max-queued-calls", 2)
    most = 4 + 2 + 64  # health and the like have 64 more
    with server(small_models, *options) as process:
        connections = strangers(process.port, 4)
        for stream in range(1, 60, 2):
            for connection in connections:
                method = methods[stream // 2 % len(methods)]
                connection.call(stream, method, b"" if method == WATCH else None)
        eventually(lambda: sum(len(connection.ended) for connection in connections) >= 4 * 30 - most)
        assert "as many as one address may have" in process.output()
        with breaking_proxy(process.port, repeat(None), source="127.0.0.2") as proxy:
            assert _is_answered(proxy.target)
