"""A real server in its own process, spoken to over gRPC."""

import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bgan.serving.models.engine import load_engine
from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.kit.servers import ServerProcess, free_port, server
from tests.kit.waiting import unreadable

Request = sampling_pb2.SampleBinaryImagesRequest
SERVICE = "bgan.v1.SamplingService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def channel(running):
    with grpc.insecure_channel(running.target) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    return sampling_pb2_grpc.SamplingServiceStub(channel)


@pytest.fixture(scope="module")
def engines(models):
    return {name: load_engine(models / f"{name}.onnx") for name in ("mlp-dbn", "mlp-sbn", "cnn-sbn")}


def _bits(stub, **fields):
    return b"".join(response.packed_images for response in stub.SampleBinaryImages(Request(**fields), timeout=60))


def test_responses_stand_alone(stub, models):
    responses = list(stub.SampleBinaryImages(Request(image_count=25, seed=3, first_index=5, batch_size=10)))
    assert [(r.first_index, r.image_count) for r in responses] == [(5, 10), (15, 10), (25, 5)]
    engine = load_engine(models / "mlp-dbn.onnx")
    for response in responses:
        assert (response.model, response.revision, response.seed) == ("mlp-dbn", engine.revision, 3)
        shape = response.image_shape
        assert (shape.channels, shape.height, shape.width) == (1, 28, 28)
        assert len(response.packed_images) == 98 * response.image_count
        assert response.probabilities == b""
    assert b"".join(r.packed_images for r in responses) == engine.sample(3, 5, 25).packed_images


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    model=st.sampled_from(["mlp-dbn", "mlp-sbn", "cnn-sbn"]),
    seed=st.integers(0, 2**63 - 1),
    first=st.integers(0, 2**63 - 2000),
    pieces=st.lists(st.tuples(st.integers(1, 300), st.integers(0, 70)), min_size=1, max_size=4),
)
def test_any_split_into_calls_and_batches_gives_the_same_bits(stub, model, seed, first, pieces):
    total = sum(count for count, _ in pieces)
    whole = _bits(stub, model=model, seed=seed, first_index=first, image_count=total)
    index, parts = first, []
    for count, batch_size in pieces:
        part = _bits(stub, model=model, seed=seed, first_index=index, image_count=count, batch_size=batch_size)
        parts.append(part)
        index += count
    assert b"".join(parts) == whole


def test_concurrent_calls_give_the_same_bits(stub):
    fields = [
        {"model": m, "seed": s, "image_count": 3000} for m in ("mlp-dbn", "mlp-sbn", "cnn-sbn") for s in (1, 2)
    ]
    alone = [_bits(stub, **field) for field in fields]
    together = [b""] * len(fields)

    def call(i):
        together[i] = _bits(stub, batch_size=37 + i, **fields[i])

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(fields))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone
    assert len(set(alone)) == len(alone)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(["mlp-dbn", "mlp-sbn", "cnn-sbn"]),
            st.integers(0, 2**63 - 1),
            st.integers(0, 2**63 - 5000),
            st.integers(1, 20),
        ),
        min_size=2,
        max_size=40,
    )
)
def test_small_calls_beside_a_stream_give_the_bits_they_give_alone(stub, engines, calls):
    """Small calls share runs with each other; neither that nor the stream beside them may show."""
    stream = stub.SampleBinaryImages(Request(model="mlp-sbn", image_count=100_000, seed=1))
    with ThreadPoolExecutor(len(calls)) as pool:
        answers = list(
            pool.map(
                lambda call: _bits(stub, model=call[0], seed=call[1], first_index=call[2], image_count=call[3]),
                calls,
            )
        )
    part = b"".join(next(stream).packed_images for _ in range(3))
    stream.cancel()
    assert answers == [engines[model].sample(*images).packed_images for model, *images in calls]
    assert part == engines["mlp-sbn"].sample(1, 0, len(part) // 98).packed_images


def test_probabilities_come_with_their_pixels(stub):
    (response,) = stub.SampleBinaryImages(Request(image_count=9, seed=1, include_probabilities=True))
    probabilities = np.frombuffer(response.probabilities, "<f4").reshape(9, 784)
    pixels = np.unpackbits(np.frombuffer(response.packed_images, np.uint8).reshape(9, 98), axis=1)
    np.testing.assert_array_equal(pixels, probabilities > 0.5)


def test_without_a_seed_one_is_drawn_and_said(stub):
    (first,), (second,) = (list(stub.SampleBinaryImages(Request(image_count=4))) for _ in range(2))
    assert first.seed != second.seed
    assert _bits(stub, image_count=4, seed=first.seed) == first.packed_images


def test_every_image_is_padded_to_a_whole_byte(stub):
    (response,) = stub.SampleBinaryImages(Request(model="cnn-sbn", image_count=50, seed=1))
    rows = np.frombuffer(response.packed_images, np.uint8).reshape(50, -1)
    assert rows.shape[1] == -(-2 * 9 * 13 // 8)
    assert not (rows[:, -1] & 0b00111111).any()  # 234 pixels leave six bits


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"image_count": -1}, "image_count"),
        ({"image_count": 0}, "image_count"),
        ({"image_count": 100_001}, "image_count"),
        ({"image_count": 1, "seed": -5}, "seed"),
        ({"image_count": 1, "first_index": -1}, "first_index"),
        ({"image_count": 2, "first_index": 2**63 - 2}, "first_index"),
        ({"image_count": 1, "batch_size": -1}, "batch_size"),
        ({"image_count": 1, "batch_size": 4097}, "batch_size"),
        ({"image_count": 1, "batch_size": 4000, "include_probabilities": True}, "batch_size"),
    ],
)
def test_a_field_out_of_range_is_named(stub, fields, field):
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    with pytest.raises(grpc.RpcError) as caught:
        list(stub.SampleBinaryImages(Request(**fields)))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    _, detail = rpc_status.from_call(caught.value).details
    bad_request = error_details_pb2.BadRequest()
    assert detail.Unpack(bad_request)
    assert [violation.field for violation in bad_request.field_violations] == [field]


def test_the_last_index_of_all_can_be_asked_for(stub):
    assert len(_bits(stub, image_count=1, seed=2**63 - 1, first_index=2**63 - 2)) == 98


def test_an_unknown_model_is_not_found(stub):
    for call in (
        lambda: list(stub.SampleBinaryImages(Request(model="nope", image_count=1))),
        lambda: stub.GetModel(sampling_pb2.GetModelRequest(name="nope")),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        assert "there are cnn-sbn, mlp-dbn, mlp-sbn" in caught.value.details()


def test_models_are_listed_with_manifest_revision_and_limits(stub):
    response = stub.ListModels(sampling_pb2.ListModelsRequest())
    assert [served.model.name for served in response.models] == ["cnn-sbn", "mlp-dbn", "mlp-sbn"]
    assert [served.is_default for served in response.models] == [False, True, False]
    assert response.limits.max_image_count == 100_000
    assert response.limits.max_batch_size == 4096
    default = stub.GetModel(sampling_pb2.GetModelRequest())
    assert default.model == response.models[1]
    assert default.model.execution == sampling_pb2.EXECUTION_ANY_BATCH


def test_health_and_reflection_are_on(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == SERVING
    database = ProtoReflectionDescriptorDatabase(channel)
    assert SERVICE in database.get_services()
    service = DescriptorPool(database).FindServiceByName(SERVICE)
    assert {method.name for method in service.methods} == {"SampleBinaryImages", "ListModels", "GetModel"}


def test_a_client_that_disappears_leaves_nothing_running(stub, running):
    for _ in range(20):
        call = stub.SampleBinaryImages(Request(image_count=100_000, seed=1))
        next(call)
        call.cancel()
    assert len(_bits(stub, image_count=10, seed=1)) == 980
    assert "Traceback" not in running.output()


def test_too_many_streams_are_refused_with_a_time_to_retry(models):
    from bgan.clients import RetryPolicy, SamplingClient, ServerOverloadedError

    with (
        server(models, "--max-streams", 1, "--max-queued-calls", 0) as process,
        SamplingClient(process.target, retry=RetryPolicy(attempts=1)) as client,
    ):
        running = client.sample_binary_images(image_count=10**8, model="mlp-sbn")
        next(running)
        with pytest.raises(ServerOverloadedError) as caught:
            next(client.sample_binary_images(image_count=1))
        assert (caught.value.retry_after_seconds, caught.value.reason) == (1.0, "OVERLOADED")
        running.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_ends_streams_at_an_image_boundary(models, number):
    with server(models, "--grace-seconds", "2") as process, grpc.insecure_channel(process.target) as channel:
        statuses = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert next(statuses).status == SERVING
        stub = sampling_pb2_grpc.SamplingServiceStub(channel)
        call = stub.SampleBinaryImages(Request(image_count=10**9, seed=1, model="mlp-sbn"))
        received = next(call).image_count
        process.process.send_signal(number)
        assert next(statuses).status == NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            for response in call:
                assert response.first_index == received
                received += response.image_count
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        trailing = dict(caught.value.trailing_metadata())
        assert trailing["bgan-next-index"] == str(received)
        assert process.process.wait(10) == 0
        assert "Traceback" not in process.output(), process.output()


def test_a_short_stream_is_finished_within_the_grace_period(models):
    with server(models, "--grace-seconds", "20") as process, grpc.insecure_channel(process.target) as channel:
        stub = sampling_pb2_grpc.SamplingServiceStub(channel)
        call = stub.SampleBinaryImages(Request(image_count=20_000, seed=1))
        received = next(call).image_count
        process.process.send_signal(signal.SIGTERM)
        received += sum(response.image_count for response in call)
        assert received == 20_000
        assert process.process.wait(25) == 0


def test_health_is_not_serving_until_the_models_are_loaded(models, tmp_path):
    path = shutil.copy(models / "mlp-dbn.onnx", tmp_path)
    port = free_port()
    with (
        ThreadPoolExecutor() as pool,
        grpc.insecure_channel(f"localhost:{port}", options=[("grpc.initial_reconnect_backoff_ms", 50)]) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        with unreadable(path):
            started = pool.submit(ServerProcess, tmp_path, port=port)
            check = health.Check(health_pb2.HealthCheckRequest(service=SERVICE), wait_for_ready=True, timeout=30)
            assert check.status == NOT_SERVING
            with pytest.raises(grpc.RpcError) as caught:
                sampling_pb2_grpc.SamplingServiceStub(channel).ListModels(sampling_pb2.ListModelsRequest())
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        process = started.result()
        try:
            assert health.Check(health_pb2.HealthCheckRequest(service=SERVICE)).status == SERVING
        finally:
            process.stop()
