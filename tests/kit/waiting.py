"""Waiting for an event, with a bound, and making others wait."""

import fcntl
import os
import signal
import time
from contextlib import contextmanager


def eventually(condition, *, seconds=60):
    """Wait until a condition holds; fails where it does not within the time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@contextmanager
def unreadable(path):
    """While entered, another process that opens the file waits; for 45 seconds at most (a lease, see fcntl(2))."""
    previous = signal.signal(signal.SIGIO, signal.SIG_IGN)  # the kernel tells that someone waits
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
    finally:
        os.close(descriptor)
        signal.signal(signal.SIGIO, previous)
