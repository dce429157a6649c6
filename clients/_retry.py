"""How and when a call is tried again."""

import json
import logging
import random
import time
from dataclasses import dataclass

import grpc

from ._errors import SamplingError, ServerOverloadedError

_UNARY_METHODS = [{"service": "bgan.v1.SamplingService", "method": name} for name in ("ListModels", "GetModel")]
_MAX_UNARY_ATTEMPTS = 5  # gRPC makes no more
_MAX_CONNECT_SECONDS = 5
# gRPC says so of streams whose connection or proxy gave up; a server's own INTERNAL says neither.
_BROKEN_STREAM_TEXTS = ("RST_STREAM", "Stream removed")
_REFUSED_CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How a call is tried again when the server is away, restarts or is overloaded."""

    attempts: int = 8
    """Tries in a row without a new image, at least 1 (no retries); unary calls make at most 5."""
    initial_backoff_seconds: float = 0.1
    """The longest wait before the second try; it doubles with each try, and waits are drawn from 0 to it."""
    max_backoff_seconds: float = 2.0
    """The longest wait before any try, unless the server names a longer one."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 < self.initial_backoff_seconds <= self.max_backoff_seconds:
            raise ValueError(f"{self}: use at least 1 attempt, and 0 < initial backoff <= max backoff")

    def draw_backoff(self, failures: int) -> float:
        """Seconds to wait after that many failures in a row."""
        doublings = min(failures - 1, 64)
        return random.uniform(0, min(self.max_backoff_seconds, self.initial_backoff_seconds * 2**doublings))

    def channel_options(self) -> list[tuple[str, str | int]]:
        """The same policy for gRPC: for connections and for unary calls."""
        return [
            ("grpc.service_config", self._service_config()),
            ("grpc.enable_retries", 1),
            # By default a channel waits up to two minutes before it looks whether a server is back.
            ("grpc.initial_reconnect_backoff_ms", _milliseconds(self.initial_backoff_seconds)),
            ("grpc.max_reconnect_backoff_ms", _milliseconds(self.max_backoff_seconds)),
            # In spite of its name, how long one connection attempt may take.
            ("grpc.min_reconnect_backoff_ms", _milliseconds(_MAX_CONNECT_SECONDS)),
            # How soon a name may be looked up again. gRPC waits 30 s, in which a rollout can replace every server.
            ("grpc.dns_min_time_between_resolutions_ms", _milliseconds(self.max_backoff_seconds)),
        ]

    def _service_config(self) -> str:
        method: dict[str, object] = {"name": _UNARY_METHODS}
        if self.attempts > 1:
            method["retryPolicy"] = {
                "maxAttempts": min(self.attempts, _MAX_UNARY_ATTEMPTS),
                "initialBackoff": f"{_milliseconds(self.initial_backoff_seconds) / 1000}s",
                "maxBackoff": f"{_milliseconds(self.max_backoff_seconds) / 1000}s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            }
        # All addresses of a name are connected to and take turns, call by call; one that is away is passed over.
        return json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [method]})


class Retries:
    """The tries of one stream, or of one of its servers: when the next one is due, and how long is left."""

    def __init__(self, target: str, policy: RetryPolicy, timeout: float | None) -> None:
        self._target = target
        self._policy = policy
        self._end = None if timeout is None else time.monotonic() + timeout
        self._failures = 0

    def seconds_left(self) -> float | None:
        """How long the stream may still take, waits and retries included; None: no limit."""
        return None if self._end is None else self._end - time.monotonic()

    def reset(self) -> None:
        """Images arrived: count from 0 again."""
        self._failures = 0

    def wait_after(self, failure: SamplingError) -> float:
        """Seconds to wait before the next try. Raises `failure` if there is none, or none in time."""
        self._failures += 1
        if not is_transient(failure) or self._failures >= self._policy.attempts:
            raise failure
        seconds = self._policy.draw_backoff(self._failures)
        if isinstance(failure, ServerOverloadedError):
            seconds += failure.retry_after_seconds or 0
        left = self.seconds_left()
        if left is not None and seconds >= left:
            raise failure
        _log.warning(
            "%s: %s; trying again from image %s in %.1f s (try %d of %d)",
            *(self._target, failure.code.name, failure.next_index),
            *(seconds, self._failures + 1, self._policy.attempts),
        )
        return seconds


def is_transient(failure: SamplingError) -> bool:
    """Whether the same call may succeed later.

    gRPC reports UNAVAILABLE for servers that are away, stopped or killed and for broken connections; a proxy's
    RST_STREAM arrives as INTERNAL, UNKNOWN or CANCELLED. An invalid certificate stays invalid.
    """
    if failure.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
        return _REFUSED_CERTIFICATE not in str(failure)
    if failure.code in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}:
        return any(text in str(failure) for text in _BROKEN_STREAM_TEXTS)
    return isinstance(failure, ServerOverloadedError) and failure.retry_after_seconds is not None


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
