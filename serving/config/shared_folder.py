"""Temporary folders that the processes of a server share; the next start removes what a killed server left."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree

from ..errors import StartError

_IN_MEMORY = Path("/dev/shm")

_TRIES = 5


@contextmanager
def shared_folder(prefix: str, what: str, *, is_small: bool = False) -> Iterator[Path]:
    """A folder until left, in memory if it `is_small` and there is such a place, else where TMPDIR says.

    Its lock says that it is in use. Raises StartError, which says what the folder is for.
    """
    try:
        parent = _IN_MEMORY if is_small and os.access(_IN_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
        _remove_left(parent, prefix)
        folder, lock = _make(parent, prefix)
    except OSError as error:
        raise StartError(
            f"{what} of several workers need a folder for temporary files ({error.strerror}); "
            "name one that can be written to with TMPDIR, or use 1 worker"
        ) from error
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _make(parent: Path, prefix: str) -> tuple[Path, int | None]:
    """A new folder and its lock; None where folders cannot be locked."""
    for _ in range(_TRIES):
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = _lock(folder)
        if lock is not None and folder.exists():  # another server's start may have removed it just now
            break
    return folder, lock


def _lock(folder: Path) -> int | None:
    """The lock of a folder, which its process and no child of it holds; None if it cannot be had."""
    import fcntl  # there are several workers on Linux alone

    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_left(parent: Path, prefix: str) -> None:
    """Remove this user's folders that nobody has locked."""
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            if folder.lstat().st_uid == os.geteuid() and (lock := _lock(folder)) is not None:
                rmtree(folder, ignore_errors=True)
                os.close(lock)
