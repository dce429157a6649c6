"""Files that are written whole or not at all, and the folder of those that are kept."""

import json
import os
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash or a full disk leaves the old one, or none. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON atomically. Raises OSError."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def cache_folder() -> Path:
    """The folder of what is made once: BGAN_CACHE_DIR, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("BGAN_CACHE_DIR") or Path(base).expanduser() / "bgan")
