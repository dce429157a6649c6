"""A disk in memory, below `os` and `open`, for the paths under ROOT: it fails as it is told."""

import errno
import io
import os
import stat
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

ROOT = "/simulated-disk"
ERRORS = (errno.EMFILE, errno.ENOMEM, errno.EIO, errno.EACCES, errno.ESTALE)


_FIRST_DESCRIPTOR = 1_000_000_000  # above those of real files


@dataclass
class _File:
    content: bytes
    number: int
    changed: int

    def status(self):
        seconds = self.changed // 10**9
        times = dict.fromkeys(("st_mtime_ns", "st_ctime_ns", "st_atime_ns"), self.changed)
        parts = (stat.S_IFREG | 0o644, self.number, 77, 1, 0, 0, len(self.content), seconds, seconds, seconds)
        return os.stat_result(parts, times)


class _Opened(io.BytesIO):
    """An open file, whose reads fail as its path does."""

    def __init__(self, file, check):
        super().__init__(file.content)
        self._descriptor = _FIRST_DESCRIPTOR + file.number
        self._check = check

    def fileno(self):
        return self._descriptor

    def read(self, size=-1):
        self._check()
        return super().read(size)


class Disk:
    """Files by their paths; folders are what the paths tell of them. `time_ns` is the clock of the files."""

    def __init__(self, time_ns):
        self.fails = lambda path: 0
        """The number of the error that a path gives now, or 0."""
        self.room = {}
        """How many bytes may still be written, by the folder below ROOT; those not named have any."""
        self._time_ns = time_ns
        self._files = {}
        self._numbers = 0
        self._real_stat, self._real_fstat, self._real_listdir = os.stat, os.fstat, os.listdir
        self._real_open, self._real_descriptor = io.open, os.open

    def write(self, path, content, *, in_place=False):
        """Replace a file by a renamed one, or write it in place. Raises OSError as a full disk does.

        In place, a full disk cuts what is written.
        """
        path = str(path)
        left = self.room.get(Path(path).relative_to(ROOT).parts[0], len(content))
        if left < len(content) and not in_place:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if not in_place or path not in self._files:
            self._numbers += 1
            self._files[path] = _File(b"", self._numbers, 0)
        self._files[path].content, self._files[path].changed = content[:left], self._time_ns()
        if left < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def mounted(self):
        """A context in which everything that Python does with paths under ROOT ends here."""
        stack = ExitStack()
        functions = {"stat": self._stat, "fstat": self._fstat, "listdir": self._listdir, "open": self._descriptor}
        stack.enter_context(patch.multiple(os, **functions))
        stack.enter_context(patch("io.open", self._open))
        stack.enter_context(patch("builtins.open", self._open))
        return stack

    def _check(self, path, *, opens=True):
        number = self.fails(path)
        if number not in {0, errno.EMFILE} or (number == errno.EMFILE and opens):
            raise OSError(number, os.strerror(number), path)

    def _find(self, path, *, opens=True):
        self._check(path, opens=opens)
        found = self._files.get(path)
        if found is None and not any(each.startswith(f"{path}/") for each in self._files):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return found

    def _stat(self, path, *arguments, **options):
        text = _path_below_root(path)
        if text is None:
            return self._real_stat(path, *arguments, **options)
        file = self._find(text, opens=False)
        return _FOLDER if file is None else file.status()

    def _fstat(self, descriptor):
        if descriptor < _FIRST_DESCRIPTOR:
            return self._real_fstat(descriptor)
        number = descriptor - _FIRST_DESCRIPTOR
        return next(file for file in self._files.values() if file.number == number).status()

    def _listdir(self, path="."):
        text = _path_below_root(path)
        if text is None:
            return self._real_listdir(path)
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
        if mode not in {"r", "rb"}:
            raise NotImplementedError(f"{text}: mode {mode} is not simulated")
        opened = _Opened(found, lambda: self._check(text, opens=False))
        return opened if mode == "rb" else io.TextIOWrapper(opened, encoding="utf-8")

    def _descriptor(self, path, *arguments, **options):
        if _path_below_root(path) is not None:
            raise NotImplementedError(f"{path}: descriptors are not simulated")
        return self._real_descriptor(path, *arguments, **options)


_FOLDER = os.stat_result((stat.S_IFDIR | 0o755, 1, 77, 2, 0, 0, 0, 0, 0, 0))


def _path_below_root(path):
    with suppress(TypeError):
        text = os.fspath(path)
        if isinstance(text, str) and text.startswith(ROOT):
            return text
    return None
