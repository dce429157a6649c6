"""How many images a token has left, in this process or in several together."""

from __future__ import annotations

import os
import struct
import time
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from ..errors import QuotaSpentError

FOLDER_VARIABLE = "BGAN_QUOTA_FOLDER"
"""Tells a worker the folder of the quotas that all workers share."""
_SECONDS = 60.0
_SHARE_TO_WAIT_FOR = 0.1  # of a minute's images: who resumes for less asks too often
_STATE = struct.Struct("dd")  # what is left, and when that was; all processes have the same clock


class _State:
    """What is left and when that was, in this process."""

    def __init__(self, left: float) -> None:
        self.write(left, time.monotonic())

    def locked(self) -> AbstractContextManager[None]:
        """Nobody else changes it meanwhile."""
        return nullcontext()

    def read(self) -> tuple[float, float]:
        return self._values

    def write(self, left: float, counted: float) -> None:
        self._values = left, counted


class _SharedState(_State):
    """The same in a file, shared with other processes."""

    def __init__(self, left: float, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        weakref.finalize(self, os.close, self._file)
        with self.locked():
            if not os.fstat(self._file).st_size:
                self.write(left, time.monotonic())

    @contextmanager
    def locked(self) -> Iterator[None]:
        import fcntl  # there are several processes on Linux alone

        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def read(self) -> tuple[float, float]:
        left, counted = _STATE.unpack(os.pread(self._file, _STATE.size, 0))
        return left, counted

    def write(self, left: float, counted: float) -> None:
        os.pwrite(self._file, _STATE.pack(left, counted), 0)


class Quota:
    """Images per minute, refilled steadily up to one minute's.

    A message is sent while anything is left, and may leave a debt, which is waited off.
    """

    def __init__(self, images_per_minute: int, shared: Path | None = None) -> None:
        """`shared`: a file in which other processes count too."""
        self._images_per_minute = images_per_minute
        self._per_second = images_per_minute / _SECONDS
        self._state = _State(images_per_minute) if shared is None else _SharedState(images_per_minute, shared)

    def check(self, next_index: int | None = None) -> None:
        """Raises QuotaSpentError, with `next_index`, if nothing is left."""
        with self._state.locked():
            left, _ = self._filled()
        self._refuse_if_spent(left, next_index)

    def take(self, image_count: int, next_index: int | None = None) -> None:
        """Count images that are sent. Raises QuotaSpentError, with `next_index`, if nothing was left."""
        with self._state.locked():
            left, now = self._filled()
            self._state.write(left - image_count if left > 0 else left, now)
        self._refuse_if_spent(left, next_index)

    def _filled(self) -> tuple[float, float]:
        """What is left by now, and now."""
        left, counted = self._state.read()
        now = time.monotonic()
        return min(left + (now - counted) * self._per_second, float(self._images_per_minute)), now

    def _refuse_if_spent(self, left: float, next_index: int | None) -> None:
        if left <= 0:
            wanted = self._images_per_minute * _SHARE_TO_WAIT_FOR
            seconds = (wanted - left) / self._per_second
            raise QuotaSpentError(self._images_per_minute, retry_after_seconds=seconds, next_index=next_index)
