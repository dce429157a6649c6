"""The files of a folder of models, and which of them hold which model and version.

    NAME.onnx                  a model that is called as its manifest says, without a number
    NAME/VERSION.onnx          a numbered version of the model NAME; the highest is served
    NAME/VERSION/model.onnx    the same

Anything else in the folder, and every name that begins with a dot, is ignored.
"""

import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""What a model may be called."""
_VERSION = re.compile("[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class FileSnapshot:
    """A file that may hold a model, as it was at one moment."""

    path: Path
    model: str | None
    """The model's name, where its folder says it."""
    version: int
    """Its number; 0 where it has none."""
    state: tuple[int, ...]
    """Device, inode, size and times of change: another content shows in one of them."""


def scan(folder: Path, before: Mapping[Path, FileSnapshot] | None = None) -> dict[Path, FileSnapshot]:
    """The model files of a folder, by path. Raises OSError if it cannot be listed.

    before: what an earlier scan found; what cannot be looked at now is taken to be as it was then.
    """
    found: dict[Path, FileSnapshot] = {}
    for path in sorted(folder.iterdir()):
        try:
            found |= _files_at(path)
        except OSError:
            found |= {one: file for one, file in (before or {}).items() if path in (one, *one.parents)}
    return found


def _files_at(path: Path) -> dict[Path, FileSnapshot]:
    """The model files that a member of the folder is, or holds. Raises OSError if they cannot be looked at."""
    files = (snapshot(*candidate) for candidate in _candidates(path))
    return {file.path: file for file in files if file is not None}


def _candidates(path: Path) -> Iterator[tuple[Path, str | None, int]]:
    """Where a model file may be, its name and its version."""
    if path.name.startswith("."):
        return
    if path.suffix == ".onnx":
        yield path, None, 0
    elif NAME.fullmatch(path.name) and path.is_dir():
        for inner in sorted(path.iterdir()):
            if inner.suffix == ".onnx" and _VERSION.fullmatch(inner.stem):
                yield inner, path.name, int(inner.stem)
            elif _VERSION.fullmatch(inner.name):
                yield inner / "model.onnx", path.name, int(inner.name)


def address_of(name: str) -> tuple[str | None, int] | None:
    """The model, where a folder says it, and the version of a file by its path below the folder of models.

    None: no model is looked for there. The path has slashes, whatever the system has.
    """
    first, *rest = name.split("/")
    if first.startswith(".") or "\\" in name or not name.isprintable():
        return None
    if first.endswith(".onnx"):
        return None if rest else (None, 0)
    file = rest[0].removesuffix(".onnx") if len(rest) == 1 and rest[0].endswith(".onnx") else ""
    version = rest[0] if len(rest) == 2 and rest[1] == "model.onnx" else file
    if not NAME.fullmatch(first) or not _VERSION.fullmatch(version):
        return None
    return first, int(version)


def snapshot(path: Path, model: str | None = None, version: int = 0) -> FileSnapshot | None:
    """The file at a path as it is now; None if there is none. Raises OSError if that cannot be told."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    # The second time of change is the kernel's own: nobody sets it back, as `cp -p` does with the first.
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return FileSnapshot(path, model, version, state)
