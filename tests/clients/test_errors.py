"""Errors cross processes and copies with all they say."""

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import grpc
import pytest

from bgan.clients import (
    InvalidRequestError,
    ModelNotFoundError,
    RevisionChangedError,
    SamplingClient,
    SamplingError,
    ServerOverloadedError,
)

CODE = grpc.StatusCode.RESOURCE_EXHAUSTED
ERRORS = [
    SamplingError("no", code=CODE),
    *(
        kind("no", code=CODE, next_index=3)
        for kind in SamplingError.__subclasses__()
        if kind is not RevisionChangedError
    ),
    InvalidRequestError("no", code=CODE, violations={"seed": "is odd"}),
    ServerOverloadedError("no", code=CODE, retry_after_seconds=1.5),
    RevisionChangedError("here", model="m", revision="a", expected_revision="b", next_index=9),
]


@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_after_a_pickle_and_a_copy(error, again):
    error.request_id = "me"
    error.add_note("of the caller")
    error.__cause__ = grpc.RpcError()
    restored = again(error)
    assert (type(restored), str(restored), vars(restored)) == (type(error), str(error), vars(error))


def _find(target):
    with SamplingClient(target) as client:
        return client.get_model("no-such-model")


def test_an_error_comes_out_of_a_process_pool(running, processes):
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(ModelNotFoundError, match="there is no model 'no-such-model'") as caught,
    ):
        pool.submit(_find, running.target).result(timeout=60)
    assert caught.value.code == grpc.StatusCode.NOT_FOUND
