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
        self._failure = ""  # what the log said last, so that it says it once
        self._seen = self._used = [_state(path) for path in paths]
        self.content = read()

    def poll(self) -> bool:
        """Read again after a change; whether there is new content.

        Files that cannot be read change nothing, are logged, and are tried again at every poll: what failed may
        have been the moment, such as no file descriptors or no memory, and not the files.
        """
        before, self._seen = self._seen, [_state(path) for path in self._paths]
        if not before == self._seen != self._used:
            return False
        try:
            content = self._read()
        except (ServingError, OSError, MemoryError) as error:
            self._note_failure(str(error) or type(error).__name__)
            return False
        self.content, self._used, self._failure = content, self._seen, ""
        _log.info("read the %s again: %s", self._what, ", ".join(map(str, self._paths)))
        return True

    def _note_failure(self, text: str) -> None:
        if text != self._failure:
            _log.error("%s; the %s that were read before stay in force", text, self._what)
        self._failure = text


def _state(path: Path) -> tuple[int, ...] | None:
    """Other content shows in one of device, inode, size and the times of change; None: no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    # The second time of change is the kernel's own: nobody sets it back, as `cp -p` does with the first.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
