"""One stream made by several servers; each test is written for both clients."""

import random
import threading
from contextlib import ExitStack
from itertools import repeat

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgan.clients import (
    InvalidRequestError,
    RetryPolicy,
    RevisionChangedError,
    SamplingClient,
    SamplingError,
    ServerUnavailableError,
)
from tests.kit.clients import Blocking, notices_resets
from tests.kit.proxies import Digest, breaking_proxy, byte_counts, digest_of
from tests.kit.servers import free_port, restarting_server, server

PATIENT = RetryPolicy(attempts=200, initial_backoff_seconds=0.02, max_backoff_seconds=0.1)
HASTY = RetryPolicy(attempts=3, initial_backoff_seconds=0.01, max_backoff_seconds=0.05)
CLIENTS = pytest.mark.parametrize("make_client", [SamplingClient, Blocking], ids=["blocking", "asyncio"])


@pytest.fixture(scope="module")
def replicas(small_models):
    """Three servers of one model."""
    with ExitStack() as stack:
        yield [stack.enter_context(server(small_models)) for _ in range(3)]


def whole(process, count, **options):
    with SamplingClient(process.target) as client:
        return digest_of(client.sample_binary_images(image_count=count, **options), options.get("first_index", 0))


@CLIENTS
@pytest.mark.parametrize("count", [1, 7, 300, 50_000])
def test_the_shards_are_the_whole_and_every_server_has_its_part(make_client, replicas, count):
    with ExitStack() as stack:
        proxies = [stack.enter_context(breaking_proxy(process.port, repeat(None))) for process in replicas]
        with make_client([proxy.target for proxy in proxies]) as client:
            digest = digest_of(client.sample_binary_images(image_count=count, seed=5, first_index=123), 123)
    assert digest == whole(replicas[0], count, seed=5, first_index=123)
    if count > 10:
        assert min(proxy.bytes_passed for proxy in proxies) > 98 * 50


@CLIENTS
@notices_resets
@settings(max_examples=12, deadline=None)
@given(
    count=st.integers(1, 3_000),
    first_index=st.integers(0, 2**62),
    batch_size=st.integers(10, 40),
    chaos=st.lists(st.tuples(st.integers(), st.sampled_from([12_000, 60_000])), min_size=2, max_size=4),
)
def test_random_splits_with_random_breaks_are_the_whole(
    make_client, replicas, count, first_index, batch_size, chaos
):
    with ExitStack() as stack:
        targets = [
            stack.enter_context(breaking_proxy(replicas[i % 3].port, byte_counts(*limits))).target
            for i, limits in enumerate(chaos)
        ]
        with make_client(targets, retry=PATIENT) as client:
            batches = client.sample_binary_images(
                image_count=count, seed=8, first_index=first_index, batch_size=batch_size
            )
            digest = digest_of(batches, first_index)
    assert digest == whole(replicas[0], count, seed=8, first_index=first_index)


@pytest.mark.long
@CLIENTS
def test_a_split_stream_survives_kills(make_client, small_models):
    count, kills, chosen = 100_000, 6, random.Random(4)
    with ExitStack() as stack:
        servers = [stack.enter_context(restarting_server(small_models)) for _ in range(2)]
        expected = whole(servers[0], count, seed=6)
        digest, reached = Digest(), threading.Semaphore(0)

        def kill_again_and_again():
            for _ in range(kills):
                reached.acquire()
                victim = chosen.choice(servers)
                victim.stop()
                victim.start(small_models)

        killer = threading.Thread(target=kill_again_and_again)
        killer.start()
        with make_client([process.target for process in servers], retry=PATIENT) as client:
            options = {"image_count": count, "seed": 6, "batch_size": 50, "include_probabilities": True}
            for i, batch in enumerate(client.sample_binary_images(**options)):
                digest.add(batch)
                if i % (count // 50 // kills) == 0:
                    reached.release()
        killer.join()
    assert (digest.next_index, digest.hex()) == (count, expected)


@CLIENTS
def test_a_server_that_is_not_there_leaves_its_part_to_the_others(make_client, replicas, caplog):
    away = f"localhost:{free_port()}"
    with make_client([away, replicas[0].target], retry=HASTY) as client:
        batches = client.sample_binary_images(image_count=60_000, seed=1, include_probabilities=True)
        assert digest_of(batches) == whole(replicas[0], 60_000, seed=1)
        assert f"{away}: stays away; the other servers make its images" in caplog.text
        assert client.get_model().name == "sbn"
        assert [model.name for model in client.list_models()] == ["sbn"]


@CLIENTS
def test_servers_that_all_go_away_say_how_far_the_stream_came(make_client, small_models):
    with ExitStack() as stack:
        servers = [stack.enter_context(restarting_server(small_models)) for _ in range(2)]
        with make_client([process.target for process in servers], retry=HASTY) as client:
            next_index = 0
            with pytest.raises(ServerUnavailableError) as caught:
                for batch in client.sample_binary_images(image_count=10**7, seed=1, include_probabilities=True):
                    next_index = batch.next_index
                    for process in servers[: next_index // 2_000]:
                        process.stop()
            assert caught.value.next_index == next_index >= 4_000


@CLIENTS
def test_servers_of_two_revisions_are_refused(make_client, replicas, other_models):
    with server(other_models) as other, make_client([replicas[0].target, other.target]) as client:
        revisions = set()
        with pytest.raises(RevisionChangedError) as caught:
            for batch in client.sample_binary_images(image_count=10**6, seed=1):
                revisions.add(batch.revision)
        assert revisions <= {caught.value.expected_revision}
        assert caught.value.revision != caught.value.expected_revision
        assert caught.value.code == grpc.StatusCode.FAILED_PRECONDITION


@CLIENTS
def test_errors_that_no_server_could_mend_end_the_stream(make_client, replicas):
    targets = [process.target for process in replicas]
    with make_client(targets) as client:
        for options in ({"image_count": 0}, {"image_count": 9, "first_index": 2**63 - 5}, {"batch_size": 2**30}):
            with pytest.raises(InvalidRequestError):
                list(client.sample_binary_images(**{"image_count": 9, **options}))


@CLIENTS
def test_a_split_stream_can_be_left_early(make_client, replicas):
    with make_client([process.target for process in replicas]) as client:
        threads = set(threading.enumerate())
        batches = client.sample_binary_images(image_count=10**9, seed=1)
        next(batches)
        batches.close()
        assert {thread for thread in threading.enumerate() if thread.name.endswith("(_work)")} <= threads
        assert len(next(client.sample_binary_images(image_count=5, seed=1))) == 2


def test_closing_the_client_ends_a_split_stream(replicas):
    client = SamplingClient([replicas[0].target, f"localhost:{free_port()}"], timeout_seconds=None)
    batches = client.sample_binary_images(image_count=10**9, seed=1)
    next_index, closer = next(batches).next_index, threading.Thread(target=client.close)
    with pytest.raises(SamplingError, match="the client was closed") as caught:
        for batch in batches:
            next_index = batch.next_index
            if closer.ident is None:
                closer.start()
    closer.join()
    assert caught.value.next_index == next_index
