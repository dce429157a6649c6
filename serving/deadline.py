"""Deadlines of calls: nothing is computed for a caller who no longer waits for it."""

from __future__ import annotations

import time
from typing import Any

from .errors import DeadlinePassedError


def deadline_of(context: Any) -> float | None:
    """When a call must be answered, on the monotonic clock; None: no limit."""
    seconds = context.time_remaining()
    return None if seconds is None else time.monotonic() + seconds


def check_deadline(deadline: float | None) -> None:
    """Raises DeadlinePassedError if it is past."""
    if deadline is not None and time.monotonic() > deadline:
        raise DeadlinePassedError("the deadline of the call passed before its images were computed")
