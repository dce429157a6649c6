"""How many images a token is still good for."""

from __future__ import annotations

import time

from .errors import QuotaSpentError

_SECONDS = 60.0
_SHARE_TO_WAIT_FOR = 0.1  # of a minute's images: who goes on for less asks too often


class Quota:
    """Images a minute. It fills up steadily, to a minute's images at most.

    A message is sent while anything is left, and may leave a debt, which is waited off.
    """

    def __init__(self, images_per_minute: int) -> None:
        self._images_per_minute = images_per_minute
        self._per_second = images_per_minute / _SECONDS
        self._left = float(images_per_minute)
        self._counted = time.monotonic()

    def check(self, next_index: int | None) -> None:
        """Raises QuotaSpentError, with `next_index`, if nothing is left."""
        self._fill()
        if self._left <= 0:
            wanted = self._images_per_minute * _SHARE_TO_WAIT_FOR
            seconds = (wanted - self._left) / self._per_second
            raise QuotaSpentError(self._images_per_minute, retry_after_seconds=seconds, next_index=next_index)

    def take(self, image_count: int) -> None:
        """These images are sent."""
        self._left -= image_count

    def _fill(self) -> None:
        now = time.monotonic()
        self._left += (now - self._counted) * self._per_second
        self._left = min(self._left, float(self._images_per_minute))
        self._counted = now
