"""Requests and responses: what goes over the wire."""

import dataclasses

import grpc
import numpy as np
import pytest

from bgan.clients import ImageBatch, SamplingError
from bgan.clients._messages import checked_request, decode_batch
from tests.clients.responses import make_response


def test_bits_are_unpacked_row_by_row_most_significant_first():
    batch = decode_batch(make_response(), expected_index=10, target="here")
    assert batch.images.tolist() == [[[[1, 0, 0], [0, 0, 0], [0, 0, 1]]], [[[0, 1, 0], [1, 0, 1], [0, 1, 0]]]]
    assert (len(batch), batch.next_index) == (2, 12)


@pytest.mark.parametrize(
    "fields", [{"first_index": 11}, {"image_count": 3}, {"packed_images": b"x"}, {"image_count": 0}]
)
def test_a_response_that_does_not_follow_is_refused(fields):
    with pytest.raises(SamplingError) as caught:
        decode_batch(make_response(**fields), expected_index=10, target="here")
    assert caught.value.code == grpc.StatusCode.DATA_LOSS
    assert caught.value.next_index == 10


def test_a_seed_of_zero_is_a_seed():
    assert checked_request(image_count=1, seed=0).message().HasField("seed")
    assert not checked_request(image_count=1, seed=None).message().HasField("seed")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"image_count": 2**63}, "out of range"),
        ({"seed": 2**63}, "out of range"),
        ({"labels": (2**31,)}, "out of range"),
        ({"request_id": "two words"}, "request_id is 'two words'; use up to 128 letters"),
        ({"request_id": "x" * 129}, "request_id"),
    ],
)
def test_a_request_that_cannot_be_sent_is_refused_when_it_is_made(fields, says):
    with pytest.raises(SamplingError, match=says) as caught:
        checked_request(**{"image_count": 1, **fields})
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT


def test_a_request_stays_as_it_was_validated():
    with pytest.raises(dataclasses.FrozenInstanceError):
        checked_request(image_count=1).image_count = 2


def test_batches_are_equal_where_all_their_fields_are():
    bits = np.arange(6, dtype=np.uint8).reshape(3, 2)
    batch = ImageBatch(
        model="a",
        revision="r",
        seed=1,
        first_index=4,
        image_shape=(1, 4, 4),
        packed_images=bits,
        probabilities=None,
    )
    assert batch == dataclasses.replace(batch, packed_images=bits.copy())
    for change in ({"seed": 2}, {"packed_images": bits + 1}, {"labels": np.zeros(3, np.int32)}):
        assert batch != dataclasses.replace(batch, **change)
    assert batch != "a"
