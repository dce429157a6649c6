"""Model files that become engines of this process, once they were checked in another one."""

import math
from typing import Any

from ..config.limits import MAX_MODEL_BYTES
from ..config.settings import SHIPPED
from ..errors import ModelFileError
from .checker import Check, Checker
from .engine import Engine, load_engine, open_engine, probe
from .model_check import read_model_file
from .model_files import FileSnapshot
from .providers import CPU, Provider


def is_trusted(file: FileSnapshot) -> bool:
    """Whether a file needs no check in another process: it is of the package, and trusted as its code is."""
    return file.path.parent == SHIPPED


def load_checked(file: FileSnapshot, max_bytes: int = MAX_MODEL_BYTES, provider: Provider = CPU) -> Engine:
    """Check a file, wait for it, and open it. Raises ModelFileError."""
    if is_trusted(file):
        return open_checked(file, None, max_bytes, provider)
    checker = Checker(max_bytes)
    try:
        while (found := checker.take(file)) is None:
            checker.wait(math.inf)
    finally:
        checker.close()
    return open_checked(file, found, max_bytes, provider)


def open_checked(file: FileSnapshot, found: Check | None, max_bytes: int, provider: Provider = CPU) -> Engine:
    """The engine of a file as its check found it; None: it needs none. Raises ModelFileError.

    Checks are the CPU's: a GPU would be opened once for each of their processes. What another provider makes of a
    checked file is tried here.
    """
    given: dict[str, Any] = {"name": file.model, "version": file.version, "provider": provider}
    if found is None:
        return load_engine(file.path, max_bytes=max_bytes, **given)
    if found.error is not None:
        raise found.error
    content = read_model_file(file.path, max_bytes)
    try:
        engine = open_engine(content, **given)
        # Its times alone may change: with a hard link, or with `chmod`.
        if engine.file_sha256 != found.file_sha256:
            raise ModelFileError("changed while it was read; it is read again once it settles")
        if not provider.is_cpu:
            probe(engine)
    except ModelFileError as error:
        raise ModelFileError(f"{file.path} {error.message}", detail=error.detail) from error
    engine.path = file.path
    if provider.is_cpu:
        engine.tile_rows, engine.seconds_per_image = found.tile_rows, found.seconds_per_image
    return engine
