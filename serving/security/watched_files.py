"""Files that are read again when they change."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from ..errors import ServingError

POLL_SECONDS = 1.0
"""How often files are checked."""
_Content = TypeVar("_Content")
_log = logging.getLogger(__name__)


class WatchedFiles(Generic[_Content]):
    """The last valid content.

    A change counts once two polls in a row find it: files that belong together are seldom replaced at one moment.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], _Content], *, what: str) -> None:
        """Read for the first time. Raises what `read` raises, a ServingError if a file is invalid."""
        self._paths = paths
        self._read = read
        self._what = what
        self._seen = self._used = [_state(path) for path in paths]
        self.content = read()

    def poll(self) -> bool:
        """Read again after a change; whether there is new content. Invalid files are logged and change nothing."""
        before, self._seen = self._seen, [_state(path) for path in self._paths]
        if not before == self._seen != self._used:
            return False
        self._used = self._seen
        try:
            self.content = self._read()
        except ServingError as error:
            _log.error("%s; the %s that were read before stay in force", error, self._what)
            return False
        _log.info("read the %s again: %s", self._what, ", ".join(map(str, self._paths)))
        return True


def _state(path: Path) -> tuple[int, int, int, int] | None:
    """Other content shows in one of device, inode, size and time of change; None: no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
