"""Values of every argument: they mean what they say, or are refused in one line that names them."""

import math
import warnings

import numpy as np
import pytest

from bgan.clients import (
    AsyncSamplingClient,
    DeadlineExceededError,
    InvalidRequestError,
    RetryPolicy,
    SamplingClient,
    ServerUnavailableError,
)
from tests.kit.clients import Blocking
from tests.kit.servers import free_port

CLIENTS = pytest.mark.parametrize("make_client", [SamplingClient, Blocking], ids=["blocking", "asyncio"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("image_count", value) for value in (None, math.inf, math.nan, 5.0, "5", True, 2**63, 10**9999, [5])),
        *(("seed", value) for value in (2**63, -(2**64), 1.5, "1")),
        *(("first_index", value) for value in (2**63, math.inf, None)),
        *(("batch_size", value) for value in (2**31, 0.5)),
        *(("version", value) for value in (2**63, "1")),
        *(
            ("labels", value)
            for value in ([2**31], 1.5, [1.5], None, [[1, 2]], ["\udcff"], True, [True], {1, 0}, b"1", {1: 2})
        ),
        *(("include_probabilities", value) for value in ("False", 2, [0, 1], np.array([0, 1]))),
        *(("model", value) for value in (5, b"m", "\udcff")),
        *(("revision", value) for value in (5, 0, "\udcff")),
        *(("request_id", value) for value in ("", "two words", "x" * 129, 5)),
        *(("timeout_seconds", value) for value in (math.nan, "5", True)),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else type(value).__name__,
)
def test_a_value_that_cannot_be_sent_is_refused_at_once(field, value):
    client = SamplingClient("localhost:1")
    with pytest.raises(InvalidRequestError, match=field) as caught:
        client.sample_binary_images(**{"image_count": 1, field: value})
    assert list(caught.value.violations) == [field]
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@CLIENTS
def test_values_about_models_are_checked_too(make_client):
    with make_client("localhost:1") as client:
        for arguments in ({"name": 5}, {"name": "\udcff"}, {"version": 2**63}, {"timeout_seconds": math.nan}):
            with pytest.raises(InvalidRequestError, match=next(iter(arguments))):
                client.get_model(**arguments)


@CLIENTS
def test_numbers_of_numpy_are_numbers(running, make_client):
    with make_client(running.target) as client, warnings.catch_warnings():
        warnings.simplefilter("error")
        (batch,) = client.sample_binary_images(
            image_count=np.int64(3), seed=np.uint8(4), first_index=np.int64(2**62), timeout_seconds=np.float32(60)
        )
        assert (len(batch), batch.seed, batch.first_index) == (3, 4, 2**62)
        with pytest.raises(InvalidRequestError, match="first_index"):
            next(client.sample_binary_images(image_count=np.int64(3), first_index=np.int64(2**63 - 1)))


@CLIENTS
@pytest.mark.parametrize("seconds", [math.inf, 1e300, 10**30, 10**400, None])
def test_no_limit_is_no_limit(running, make_client, seconds):
    with make_client(running.target, timeout_seconds=seconds) as client:
        assert len(client.list_models(timeout_seconds=seconds)) == 3
        assert sum(map(len, client.sample_binary_images(image_count=3, timeout_seconds=seconds))) == 3


@CLIENTS
@pytest.mark.parametrize("seconds", [0, -1, -math.inf])
def test_a_time_that_is_over_is_over(running, make_client, seconds):
    with make_client(running.target) as client:
        for call in (client.list_models, lambda **time: next(client.sample_binary_images(image_count=3, **time))):
            with pytest.raises(DeadlineExceededError):
                call(timeout_seconds=seconds)


@pytest.mark.parametrize("kind", [SamplingClient, AsyncSamplingClient])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        *(({"timeout_seconds": value}, "timeout_seconds") for value in (0, -1, math.nan, "5", True)),
        *(({"retry": value}, "use a RetryPolicy") for value in (3, False, "fast")),
        ({"credentials": "ca.pem"}, "tls_credentials"),
        ({"server_name": "example.org"}, "server_name is of TLS"),
        *(({"token": value}, "the token is") for value in ("", " ", "two words", "é", 5, b"x")),
    ],
    ids=str,
)
def test_a_client_that_cannot_be_meant(kind, options, says):
    with pytest.raises(ValueError, match=says):
        kind("localhost:1", **options)


@pytest.mark.parametrize("field", ["attempts", "initial_backoff_seconds", "max_backoff_seconds"])
@pytest.mark.parametrize("value", ["3", True, math.nan, -1, [1]], ids=str)
def test_a_policy_that_cannot_be_meant(field, value):
    with pytest.raises(ValueError, match="use at least 1 attempt, and 0 < initial backoff"):
        RetryPolicy(**{field: value})


@CLIENTS
def test_many_attempts_and_few(make_client):
    for attempts, timeout in ((1, 60), (math.inf, 0.5), (10**30, 0.5), (None, 0.5)):
        policy = RetryPolicy(attempts=attempts, initial_backoff_seconds=0.01, max_backoff_seconds=0.01)
        with make_client(f"127.0.0.1:{free_port()}", retry=policy, timeout_seconds=timeout) as client:
            for call in (
                client.list_models,
                lambda client=client: next(client.sample_binary_images(image_count=1)),
            ):
                with pytest.raises(ServerUnavailableError):
                    call()


def test_public_names_are_completed():
    import bgan.clients

    assert set(bgan.clients.__all__) <= set(dir(bgan.clients))
