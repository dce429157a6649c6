"""How and when a call is tried again."""

import json

import pytest

from bgan.clients import RetryPolicy


def _service_config(policy):
    (method,) = json.loads(dict(policy.channel_options())["grpc.service_config"])["methodConfig"]
    return method


def test_grpc_retries_only_unary_calls():
    method = _service_config(RetryPolicy(attempts=3, initial_backoff_seconds=0.5))
    service = "bgan.v1.SamplingService"
    assert method["name"] == [{"service": service, "method": name} for name in ("ListModels", "GetModel")]
    assert method["retryPolicy"]["maxAttempts"] == 3
    assert method["retryPolicy"]["initialBackoff"] == "0.5s"
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert _service_config(RetryPolicy(attempts=9))["retryPolicy"]["maxAttempts"] == 5
    assert "retryPolicy" not in _service_config(RetryPolicy(attempts=1))


@pytest.mark.parametrize("settings", [{"attempts": 0}, {"initial_backoff_seconds": 3}])
def test_invalid_retry_policies(settings):
    with pytest.raises(ValueError, match="at least 1 attempt"):
        RetryPolicy(**settings)


def test_waits_are_drawn_below_a_bound_that_doubles():
    policy = RetryPolicy(initial_backoff_seconds=0.1, max_backoff_seconds=1)
    for failures, bound in ((1, 0.1), (2, 0.2), (4, 0.8), (5, 1), (10_000, 1)):
        waits = [policy.draw_backoff(failures) for _ in range(200)]
        assert 0 <= min(waits) < bound / 4
        assert bound * 3 / 4 < max(waits) <= bound
