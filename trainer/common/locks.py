"""Locks between processes, containers and machines that share a file system; each ends with its process."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: as on a file system without locks
    fcntl = None  # type: ignore[assignment]

_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock of this name, a file that is there meanwhile. On a file system without locks all may pass.

    Raises BlockingIOError where another process holds it, and OSError.
    """
    with path.open("ab") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
        if not _is_named(path, file.fileno()):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
        try:
            yield
        finally:
            with suppress(PermissionError):  # of Windows, where a file that is open stays
                path.unlink(missing_ok=True)


def _is_named(path: Path, descriptor: int) -> bool:
    """Whether the open file still has its name: who held the lock before may have removed it just now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
