"""A disk in memory, below `os` and `open`, for the paths under ROOT: it fails as it is told."""

import errno
import io
import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

ROOT = "/simulated-disk"
ERRORS = (errno.EMFILE, errno.ENOMEM, errno.EIO, errno.EACCES, errno.ESTALE)


@dataclass
class _File:
    content: bytes
    number: int
    changed: int


class Disk:
    """Files by their paths; folders are what the paths tell of them.

    `time_ns` is the clock of the files, `fails(path)` the number of the error that a path gives now, or 0.
    """

    def __init__(self, time_ns, fails):
        self._time_ns = time_ns
        self._fails = fails
        self._files = {}
        self._numbers = 0
        self._real = {name: getattr(os, name) for name in ("stat", "listdir")}
        self._real_open = io.open
        self.room = {}
        """How many bytes may still be written, by the folder below ROOT; those not named have any."""

    def write(self, path, content, *, in_place=False):
        """Replace a file by a renamed one, or write it in place. Raises OSError as a full disk does.

        In place, a full disk cuts what is written.
        """
        path = str(path)
        left = self.room.get(_host(path), len(content))
        if left < len(content) and not in_place:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if not in_place or path not in self._files:
            self._numbers += 1
            self._files[path] = _File(b"", self._numbers, 0)
        self._files[path].content, self._files[path].changed = content[:left], self._time_ns()
        if left < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def remove(self, path):
        self._files.pop(str(path), None)

    @contextmanager
    def mounted(self):
        """Everything that Python does with paths under ROOT ends here."""
        with patch.multiple(os, stat=self._stat, listdir=self._listdir, open=_no_open(os.open)):
            with patch("io.open", self._open), patch("builtins.open", self._open):
                yield

    def _find(self, path):
        if (number := self._fails(path)) != 0:
            raise OSError(number, os.strerror(number), path)
        found = self._files.get(path)
        if found is None and not any(each.startswith(f"{path}/") for each in self._files):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return found

    def _stat(self, path, *arguments, **options):
        text = _path_below_root(path)
        if text is None:
            return self._real["stat"](path, *arguments, **options)
        file = self._find(text)
        if file is None:
            return os.stat_result((stat.S_IFDIR | 0o755, 1, 77, 2, 0, 0, 0, 0, 0, 0))
        seconds, size = file.changed // 10**9, len(file.content)
        times = dict.fromkeys(("st_mtime_ns", "st_ctime_ns", "st_atime_ns"), file.changed)
        parts = (stat.S_IFREG | 0o644, file.number, 77, 1, 0, 0, size, seconds, seconds, seconds)
        return os.stat_result(parts, times)

    def _listdir(self, path="."):
        text = _path_below_root(path)
        if text is None:
            return self._real["listdir"](path)
        if self._find(text) is not None:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), text)
        below = (each[len(text) + 1 :] for each in self._files if each.startswith(f"{text}/"))
        return sorted({each.partition("/")[0] for each in below})

    def _open(self, file, mode="r", *arguments, **options):
        text = _path_below_root(file)
        if text is None:
            return self._real_open(file, mode, *arguments, **options)
        found = self._find(text)
        if found is None:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), text)
        content = io.BytesIO(found.content)
        if mode not in {"r", "rb"}:
            raise NotImplementedError(f"{text}: mode {mode} is not simulated")
        return content if mode == "rb" else io.TextIOWrapper(content, encoding="utf-8")


def _no_open(real):
    def open_descriptor(path, *arguments, **options):
        if _path_below_root(path) is not None:
            raise NotImplementedError(f"{path}: descriptors are not simulated")
        return real(path, *arguments, **options)

    return open_descriptor


def _path_below_root(path):
    with suppress(TypeError):
        text = os.fspath(path)
        if isinstance(text, str) and text.startswith(ROOT):
            return text
    return None


def _host(path):
    return Path(path).relative_to(ROOT).parts[0]
