"""Files that are written whole or not at all."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path, *, has_rivals: bool = False) -> Iterator[BinaryIO]:
    """A file to write that takes its name only when it is written and on disk. Raises OSError.

    Its name until then is the same in every process, so that one left by a crash is written over; with rivals,
    other processes that may write the same file at the same time, it is no other's.
    """
    own = f".{os.urandom(8).hex()}" if has_rivals else ""
    temporary = path.with_name(f".{path.name}{own}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        move(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Give a file another name in its folder, replacing a file, whose permissions stay, and see it to disk."""
    with suppress(FileNotFoundError):
        source.chmod(stat.S_IMODE(target.stat().st_mode))
    source.replace(target)
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
        return
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
