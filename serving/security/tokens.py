"""Tokens: who may call, which models, and how many images per minute. Only their hashes are kept.

A file of tokens is TOML, with a table for each name:

    [alice]
    sha256 = "6a1f..."                 # of the whole token
    models = ["digits", "letters-*"]   # names, or patterns of them
    images_per_minute = 60000          # optional
    expires = 2027-01-01T00:00:00Z     # optional
"""

import errno
import hashlib
import hmac
import json
import os
import re
import secrets
import time
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from ..config.sources import read_toml
from ..config.whole_file import whole_file
from ..errors import TokenFileError, UsageError

_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")  # what TOML takes as it stands, and no separator of a token's parts
_PREFIX = "bgan"
_SECRET_BYTES = 32
_NO_HASH = "0" * 64


class Token(BaseModel):
    """What the holder of a token may do."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """The hash of the token. A plain one is enough: nobody guesses 256 random bits, however fast the hash is."""
    models: list[str] = Field(min_length=1)
    """Names of models, or shell patterns."""
    images_per_minute: int | None = Field(None, ge=1, lt=2**63)
    """None: any number."""
    expires: AwareDatetime | None = None
    """None: never."""

    def has_expired(self) -> bool:
        """Whether it is no longer valid."""
        return self.expires is not None and self.expires.timestamp() <= time.time()


def read_tokens(path: Path) -> dict[str, Token]:
    """The tokens of a file by their names. Raises TokenFileError with one line that says what is wrong."""
    content = read_toml(path, TokenFileError, hint="; `bgan token` writes such a file")
    return {name: _read_token(path, name, table) for name, table in content.items()}


def _read_token(path: Path, name: str, table: object) -> Token:
    if not _NAME.fullmatch(name) or not isinstance(table, Mapping):
        raise TokenFileError(f"{path}: {name!r} is not a table of a token; `bgan token` writes such tables")
    try:
        return Token.model_validate(table)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(map(str, (name, *problem["loc"])))
        raise TokenFileError(f"{path}: {key}: {problem['msg'].lower()}") from None


def find_token(tokens: Mapping[str, Token], text: str) -> str | None:
    """The name of the token that a caller sent; None, in the same time, if it is unknown."""
    name = text.rpartition("_")[0].rpartition("_")[2]
    kept = tokens[name].sha256 if name in tokens else _NO_HASH
    return name if hmac.compare_digest(kept, _hash(text)) else None


def make_token(
    path: Path, name: str, *, models: Sequence[str], images_per_minute: int | None, expires: datetime | None
) -> str:
    """A new token, whose hash is added to a file, which if new is its owner's alone.

    Raises TokenFileError, and UsageError for what is no name.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not a name for a token; use up to 64 letters, digits and hyphens")
    if path.exists() and name in read_tokens(path):
        raise TokenFileError(
            f"{path} already has a token {name}; `bgan token revoke {name}` removes it, or choose another name"
        )
    text = f"{_PREFIX}_{name}_{secrets.token_hex(_SECRET_BYTES)}"
    table = f'[{name}]\nsha256 = "{_hash(text)}"\nmodels = {json.dumps(list(models))}\n'
    if images_per_minute is not None:
        table += f"images_per_minute = {images_per_minute}\n"
    if expires is not None:
        table += f"expires = {expires.isoformat()}\n"
    _read_token(path, name, tomllib.loads(table)[name])
    try:
        _append(path, table)
    except OSError as error:
        raise TokenFileError(f"{path} cannot be written ({error.strerror})") from error
    return text


def remove_token(path: Path, name: str) -> None:
    """Remove a token from a file, whose other lines stay. Raises TokenFileError."""
    tokens = read_tokens(path)
    if name not in tokens:
        raise TokenFileError(f"{path} has no token {name!r}; there are {', '.join(tokens) or 'none'}")
    lines = path.read_text("utf-8").splitlines(keepends=True)
    headings = [number for number, line in enumerate(lines) if line.lstrip().startswith("[")]
    first = next((number for number in headings if _heading(lines[number]) == name), len(lines))
    after = next((number for number in headings if number > first), len(lines))
    content = "".join(lines[:first] + lines[after:])
    if tomllib.loads(content).keys() != tokens.keys() - {name}:
        raise TokenFileError(
            f"{path} is not written as `bgan token` writes it; remove the lines of {name} by hand"
        )
    try:
        target = Path(os.path.realpath(path))
        with whole_file(target) as file:
            file.write(content.encode())
            _keep_owner(target, file.fileno())
    except OSError as error:
        raise TokenFileError(f"{path} cannot be written ({error.strerror})") from error


def _heading(line: str) -> str:
    """The name of the table that a line begins."""
    return line.strip().removeprefix("[").partition("]")[0].strip().strip("\"'")


def _keep_owner(path: Path, descriptor: int) -> None:
    """Give what replaces a file to its owner, so that the server can read it."""
    old = path.stat()
    with suppress(PermissionError, AttributeError):  # root alone may give files to others; Windows has none
        os.fchown(descriptor, old.st_uid, old.st_gid)


def _append(path: Path, table: str) -> None:
    """Add all or nothing to a file in place, which keeps its owner and permissions."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        gap = {b"": b"", b"\n": b"\n"}.get(file.read(1), b"\n\n")  # the last line may not be ended
        added = gap + table.encode()
        try:
            if file.write(added) != len(added):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
