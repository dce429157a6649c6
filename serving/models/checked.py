"""Model files that become engines of this process, once they were checked in another one."""

import math

from ..config.limits import MAX_MODEL_BYTES
from ..config.settings import SHIPPED
from ..errors import ModelFileError
from .checker import Check, Checker
from .engine import Engine, load_engine, open_engine
from .model_check import read_model_file
from .model_files import FileSnapshot


def is_trusted(file: FileSnapshot) -> bool:
    """Whether a file needs no check in another process: it is of the package, and trusted as its code is."""
    return file.path.parent == SHIPPED


def load_checked(file: FileSnapshot, max_bytes: int = MAX_MODEL_BYTES) -> Engine:
    """Check a file, wait for it, and open it. Raises ModelFileError."""
    if is_trusted(file):
        return open_checked(file, None, max_bytes)
    checker = Checker(max_bytes)
    try:
        while (found := checker.take(file)) is None:
            checker.wait(math.inf)
    finally:
        checker.close()
    return open_checked(file, found, max_bytes)


def open_checked(file: FileSnapshot, found: Check | None, max_bytes: int) -> Engine:
    """The engine of a file as its check found it; None: it needs none. Raises ModelFileError."""
    if found is None:
        return load_engine(file.path, name=file.model, version=file.version, max_bytes=max_bytes)
    if found.error is not None:
        raise found.error
    content = read_model_file(file.path, max_bytes)
    try:
        engine = open_engine(content, name=file.model, version=file.version)
    except ModelFileError as error:
        raise ModelFileError(f"{file.path} {error.message}", detail=error.detail) from error
    if engine.revision != found.revision:  # its times alone may change: with a hard link, or with `chmod`
        raise ModelFileError(f"{file.path} changed while it was read; it is read again once it settles")
    engine.path = file.path
    engine.tile_rows, engine.seconds_per_image = found.tile_rows, found.seconds_per_image
    return engine
