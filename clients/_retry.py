"""How and when a call is tried again."""

import json
import logging
import math
import random
import threading
import time
from dataclasses import dataclass
from numbers import Real

import grpc

from ._credentials import TLS_MARK
from ._errors import DeadlineExceededError, SamplingError, ServerOverloadedError

_MAX_CONNECT_SECONDS = 5
_MAX_SUGGESTED_SECONDS = 86_400.0  # a server that names a longer wait is not waited for
_MAX_WARNINGS = 20  # in a row; then every twentieth
_INT32_MAX = 2**31 - 1
# gRPC says so of streams whose connection or proxy gave up; a server's own INTERNAL says neither.
_BROKEN_STREAM_TEXTS = ("RST_STREAM", "Stream removed")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How a call is tried again when the server is away, restarts or is overloaded."""

    attempts: int | None = None
    """Tries in a row without a new image, at least 1 (no retries); None: as many as fit in the call's timeout."""
    initial_backoff_seconds: float = 0.1
    """The longest wait before the second try; it doubles with each try, and waits are drawn from 0 to it."""
    max_backoff_seconds: float = 2.0
    """The longest wait before any try, unless the server names a longer one."""

    def __post_init__(self) -> None:
        attempts = math.inf if self.attempts is None else self.attempts
        given = (attempts, self.initial_backoff_seconds, self.max_backoff_seconds)
        are_numbers = all(isinstance(value, Real) and not isinstance(value, bool) for value in given)
        if not are_numbers or not (given[0] >= 1 and 0 < given[1] <= given[2] < math.inf):
            raise ValueError(f"{self}: use at least 1 attempt, and 0 < initial backoff <= max backoff < infinity")

    def draw_backoff(self, failures: int) -> float:
        """Seconds to wait after that many failures in a row."""
        doublings = min(failures - 1, 64)
        return random.uniform(0, min(self.max_backoff_seconds, self.initial_backoff_seconds * 2**doublings))

    def channel_options(self) -> list[tuple[str, str | int]]:
        """The same policy for gRPC's connections."""
        # All addresses of a name are connected to and take turns, call by call; one that is away is passed over.
        config = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
        return [
            ("grpc.service_config", config),
            # By default a channel waits up to two minutes before it looks whether a server is back.
            ("grpc.initial_reconnect_backoff_ms", _milliseconds(self.initial_backoff_seconds)),
            ("grpc.max_reconnect_backoff_ms", _milliseconds(self.max_backoff_seconds)),
            # In spite of its name, how long one connection attempt may take.
            ("grpc.min_reconnect_backoff_ms", _milliseconds(_MAX_CONNECT_SECONDS)),
            # How soon a name may be looked up again. gRPC waits 30 s, in which a rollout can replace every server.
            ("grpc.dns_min_time_between_resolutions_ms", _milliseconds(self.max_backoff_seconds)),
        ]


class Retries:
    """The tries of one call, or of one of a stream's servers: when the next one is due, and how long is left."""

    def __init__(self, target: str, policy: RetryPolicy, timeout: float | None) -> None:
        self._target = target
        self._attempts = math.inf if policy.attempts is None else policy.attempts
        self._policy = policy
        self._end = None if timeout is None else time.monotonic() + timeout
        self._failures = 0
        self._last: SamplingError | None = None

    def seconds_left(self, next_index: int | None = None) -> float | None:
        """How long the call may still take, waits and retries included; None: no limit.

        Raises DeadlineExceededError, or what failed last, if its time is over.
        """
        left = self._left()
        if left is not None and left <= 0:
            text = f"{self._target}: the timeout is over"
            late = DeadlineExceededError(text, code=grpc.StatusCode.DEADLINE_EXCEEDED, next_index=next_index)
            raise self._last or late
        return left

    def reset(self) -> None:
        """Images arrived: count from 0 again."""
        self._failures, self._last = 0, None

    def wait_after(self, failure: SamplingError) -> float:
        """Seconds to wait before the next try. Raises `failure` if there is none, or none in time."""
        if isinstance(failure, DeadlineExceededError) and self._last is not None:
            raise self._last from failure  # which says why there was no answer in time
        self._failures, self._last = self._failures + 1, failure
        if not is_transient(failure) or self._failures >= self._attempts:
            raise failure
        seconds = self._policy.draw_backoff(self._failures)
        if isinstance(failure, ServerOverloadedError):
            seconds += failure.retry_after_seconds or 0
        left = self._left()
        if left is not None and seconds >= left:
            raise failure
        self._warn(failure, seconds)
        return min(seconds, threading.TIMEOUT_MAX)

    def _left(self) -> float | None:
        return None if self._end is None else self._end - time.monotonic()

    def _warn(self, failure: SamplingError, seconds: float) -> None:
        if self._failures > _MAX_WARNINGS and self._failures % _MAX_WARNINGS:
            return  # a server that is away for an hour does not fill a log
        where = () if failure.next_index is None else (failure.next_index,)
        text = f"%s: %s; trying again{' from image %s' if where else ''} in %.1f s (try %d%s)"
        of_all = "" if self._policy.attempts is None else f" of {self._policy.attempts}"
        _log.warning(text, self._target, failure.code.name, *where, seconds, self._failures + 1, of_all)


def is_transient(failure: SamplingError) -> bool:
    """Whether the same call may succeed later.

    gRPC reports UNAVAILABLE for servers that are away, stopped or killed and for broken connections; a proxy's
    RST_STREAM arrives as INTERNAL, UNKNOWN or CANCELLED. An invalid certificate stays invalid, and so on.
    """
    if failure.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
        return TLS_MARK not in str(failure)
    if failure.code in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}:
        return any(text in str(failure) for text in _BROKEN_STREAM_TEXTS)
    suggested = failure.retry_after_seconds if isinstance(failure, ServerOverloadedError) else None
    return suggested is not None and suggested <= _MAX_SUGGESTED_SECONDS


def _milliseconds(seconds: float) -> int:
    return min(max(1, round(seconds * 1000)), _INT32_MAX)
