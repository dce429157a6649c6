"""Waiting for an event, with a bound."""

import time


def eventually(condition, *, seconds=60):
    """Wait until a condition holds; fails where it does not within the time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
