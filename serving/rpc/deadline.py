"""Deadlines of calls: nothing is computed for a caller who no longer waits for it."""

from __future__ import annotations

import time
from typing import Any

from ..errors import DeadlinePassedError

_SLACK_SECONDS = 0.05  # a caller whose clock began earlier gives up a moment before ours does


def deadline_of(context: Any) -> float | None:
    """When a call must be answered, on the monotonic clock; None: no limit."""
    seconds = context.time_remaining()
    return None if seconds is None else time.monotonic() + seconds


def is_over(context: Any) -> bool:
    """Whether a call that was cancelled was so because of its deadline."""
    seconds = context.time_remaining()
    return seconds is not None and seconds < _SLACK_SECONDS


def check_deadline(deadline: float | None) -> None:
    """Raises DeadlinePassedError if it is past."""
    if deadline is not None and time.monotonic() > deadline:
        raise DeadlinePassedError("the deadline of the call passed before its images were computed")
