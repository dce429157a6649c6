"""Files that are written whole or not at all, and the folder of those that are kept."""

import errno
import json
import os
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from .errors import DataError

_READER_SECONDS = 30.0  # that a FIFO is given to be read
_POLL_SECONDS = 0.05


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash or a full disk leaves the old one, or none. Raises OSError that names the path.

    What is there stays what it is: a link keeps its target, a file its permissions, and a device, a pipe or the
    command's own output is written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        old = path.stat() if path.exists() else None
        if old is None or (stat.S_ISREG(old.st_mode) and not _own_outputs(old)):
            _replace(Path(os.path.realpath(path)), content, old)
        else:
            with _opened_as_it_is(path, old) as file:
                file.write(content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON atomically. Raises OSError."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def check_writable(path: Path) -> None:
    """Raise the OSError that writing a file would raise, now, as far as that can be told before long work."""
    _refuse_circle(Path(os.path.realpath(path)))
    folder = next(each for each in path.absolute().parents if each.exists())
    number = 0
    if path.is_dir():
        number = errno.EISDIR
    elif not folder.is_dir():
        number = errno.ENOTDIR
    elif not path.exists() and not os.access(folder, os.W_OK | os.X_OK):
        number = errno.EACCES
    if number:
        raise OSError(number, os.strerror(number), str(path))


def temporary_name(path: Path) -> Path:
    """A hidden name beside a path that no other process has, be it of another machine or container."""
    return path.with_name(f".{os.urandom(8).hex()}.tmp")


def as_text(name: str) -> str:
    """The name of a file or folder, whose bytes may be no UTF-8, as text that is: the same in every locale."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def cache_folder() -> Path:
    """The folder of what is made once: BGAN_CACHE_DIR, else the user's cache. Raises DataError: none known."""
    if own := os.environ.get("BGAN_CACHE_DIR"):
        return Path(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bgan"
    except RuntimeError as error:  # neither HOME nor an entry of the user database
        raise DataError(
            "there is no home folder to keep images and classifiers in; name a folder for them with BGAN_CACHE_DIR"
        ) from error


def data_root(data_dir: str | None = None) -> Path:
    """The folder of data sets: the given one, BGAN_DATA_DIR, ./data if it is there, or one in `cache_folder`."""
    if given := data_dir or os.environ.get("BGAN_DATA_DIR"):
        return Path(given)
    own = Path("data")
    return own if own.is_dir() else cache_folder() / "data"


def _replace(path: Path, content: bytes, old: os.stat_result | None) -> None:
    """Give a file, not a link, this content; of an old one owner and permissions stay."""
    _refuse_circle(path)
    temporary = temporary_name(path)
    try:
        with open(temporary, "xb") as file:
            if old is not None and hasattr(os, "fchown"):  # not on Windows
                with suppress(PermissionError):  # only root may give a file to others
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _refuse_circle(path: Path) -> None:
    """Raise OSError for what is still a link when all links were followed."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _own_outputs(state: os.stat_result) -> list[int]:
    """Those of standard output and error that are this file, as /dev/stdout is."""
    found = []
    for number in (1, 2):
        with suppress(OSError):  # it is closed
            if os.path.samestat(os.fstat(number), state):
                found.append(number)
    return found


def _opened_as_it_is(path: Path, state: os.stat_result) -> IO[bytes]:
    """What is no file to replace, to write to. Raises OSError, also for a FIFO that nobody begins to read."""
    if own := _own_outputs(state):
        sys.stdout.flush()
        return open(own[0], "ab", closefd=False)
    until = time.monotonic() + _READER_SECONDS
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > until:
                raise
            time.sleep(_POLL_SECONDS)
        else:
            if hasattr(os, "O_NONBLOCK"):
                os.set_blocking(descriptor, True)
            return open(descriptor, "wb")
