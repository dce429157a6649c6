"""How and when a call is tried again."""

import math

import pytest

from bgan.clients import RetryPolicy


@pytest.mark.parametrize("seconds", [10.0**6, 10.0**12])
def test_long_waits_fit_what_grpc_takes(seconds):
    policy = RetryPolicy(initial_backoff_seconds=seconds, max_backoff_seconds=seconds)
    assert all(value < 2**31 for _, value in policy.channel_options() if isinstance(value, int))


@pytest.mark.parametrize(
    "settings",
    [
        *({"attempts": value} for value in (0, -1, math.nan)),
        *({"initial_backoff_seconds": value} for value in (3, 0, -1, math.nan)),
        *({"max_backoff_seconds": value} for value in (0, math.inf, math.nan)),
    ],
)
def test_invalid_retry_policies(settings):
    with pytest.raises(ValueError, match="at least 1 attempt"):
        RetryPolicy(**settings)


def test_waits_are_drawn_below_a_bound_that_doubles():
    policy = RetryPolicy(initial_backoff_seconds=0.1, max_backoff_seconds=1)
    for failures, bound in ((1, 0.1), (2, 0.2), (4, 0.8), (5, 1), (10_000, 1)):
        waits = [policy.draw_backoff(failures) for _ in range(200)]
        assert 0 <= min(waits) < bound / 4
        assert bound * 3 / 4 < max(waits) <= bound
