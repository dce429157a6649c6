"""How many images a token has left, in this process or in several together."""

import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import QuotaSpentError

FOLDER_VARIABLE = "BGAN_QUOTA_FOLDER"
"""Tells a worker the folder of the quotas that all workers share."""
_SECONDS = 60.0
_SHARE_TO_WAIT_FOR = 0.1  # of a minute's images: who resumes for less asks too often
_STATE = struct.Struct("dd")  # what is left, and when that was; all processes have the same clock


class Quota:
    """Images per minute, refilled steadily up to one minute's.

    A message is sent while anything is left, and may leave a debt, which is waited off.
    """

    def __init__(self, images_per_minute: int, shared: Path | None = None) -> None:
        """`shared`: a file in which other processes count too."""
        self._images_per_minute = images_per_minute
        self._per_second = images_per_minute / _SECONDS
        self._file = None if shared is None else shared.open("a+b")
        with self._locked():
            is_new = self._file is None or not self._file.seek(0, os.SEEK_END)
            if self._file is not None:
                self._file.truncate(_STATE.size)
            self._memory = mmap.mmap(-1 if self._file is None else self._file.fileno(), _STATE.size)
            if is_new:
                self._memory[:] = _STATE.pack(images_per_minute, time.monotonic())

    def take(self, image_count: int, next_index: int | None = None) -> None:
        """Count images that are sent. Raises QuotaSpentError, with `next_index`, if nothing was left."""
        with self._locked():
            left, counted = _STATE.unpack(self._memory)
            now = time.monotonic()
            left = min(left + (now - counted) * self._per_second, float(self._images_per_minute))
            self._memory[:] = _STATE.pack(left - image_count if left > 0 else left, now)
        if left <= 0:
            seconds = (self._images_per_minute * _SHARE_TO_WAIT_FOR - left) / self._per_second
            raise QuotaSpentError(self._images_per_minute, retry_after_seconds=seconds, next_index=next_index)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """No other process changes what is left meanwhile."""
        if self._file is None:
            yield
            return
        import fcntl  # there are several processes on Linux alone

        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
