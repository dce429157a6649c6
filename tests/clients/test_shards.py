"""Positions in streams, and streams that are cut into shards."""

import grpc
import pytest

from bgan.clients import SamplingError
from bgan.clients._messages import SampleRequest
from bgan.clients._stream.shards import Cursor, Shards
from tests.clients.responses import make_response


def _response(first_index, count, seed=7):
    return make_response(seed=seed, first_index=first_index, image_count=count, packed_images=bytes(2 * count))


@pytest.mark.parametrize(("count", "next_index"), [(1, 1), (3, 0)])
def test_a_server_that_ends_early_or_sends_too_much_is_refused(count, next_index):
    cursor = Cursor(SampleRequest(image_count=2, seed=7))
    with pytest.raises(SamplingError, match="another version") as caught:
        cursor.accept(_response(0, count), "x")
        cursor.check_complete("x")
    assert (caught.value.code, cursor.next_index) == (grpc.StatusCode.DATA_LOSS, next_index)


def test_images_of_another_seed_are_refused():
    cursor = Cursor(SampleRequest(image_count=2, seed=7))
    with pytest.raises(SamplingError, match="seed 8 where 7 was expected") as caught:
        cursor.accept(_response(0, 2, seed=8), "x")
    assert caught.value.next_index == cursor.next_index == 0


def test_the_rest_of_a_stream_is_asked_for_as_what_arrived():
    cursor = Cursor(SampleRequest(image_count=5, first_index=10, labels=(1, 2), request_id="me"))
    first = cursor.rest()
    assert (first.model, first.HasField("seed"), first.revision, cursor.request_id) == ("", False, "", "me")
    cursor.accept(make_response(seed=7, labels=[1, 2]), "x")
    rest = cursor.rest()
    assert (rest.first_index, rest.image_count, list(rest.labels)) == (12, 3, [1, 2])
    assert (rest.model, rest.seed, rest.revision) == ("m", 7, "r")


def test_few_shards_are_out_however_slow_the_reader_and_a_left_one_comes_first():
    shards = Shards(SampleRequest(image_count=10**9, seed=7, first_index=50), server_count=2)

    def add(shard, count):
        shards.add(shard, _response(shard.cursor.next_index, count), "x")

    taken = []
    while shards.has_free:
        taken.append(shards.take())
        add(taken[-1], 100)
    assert len(taken) == 5
    shards.give_back(taken[3])
    shards.give_back(taken[0])
    assert shards.take() is taken[0]
    assert shards.take() is taken[3]
    assert not shards.has_free
    add(taken[0], 512 - 100)
    assert [shards.pop().next_index for _ in range(2)] == [150, 562]
    assert shards.has_free, "there is room for another"
