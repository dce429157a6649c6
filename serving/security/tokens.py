"""Tokens: who may call, which models, and how many images a minute. Only their hashes are kept.

A file of tokens is TOML, a table for each by its name:

    [alice]
    sha256 = "6a1f..."                 # of the whole token
    models = ["digits", "letters-*"]   # names, or patterns of them
    images_per_minute = 60000          # optional
    expires = 2027-01-01T00:00:00Z     # optional
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import re
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from ..errors import TokenFileError

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
    """The names of models, or patterns of them as a shell has them."""
    images_per_minute: int | None = Field(None, ge=1, lt=2**63)
    """How many images it is good for; None: any number."""
    expires: AwareDatetime | None = None
    """When it ends; None: never."""

    def has_expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= datetime.now(UTC)


def read_tokens(path: Path) -> dict[str, Token]:
    """The tokens of a file by their names. Raises TokenFileError with one line that says what is wrong."""
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise TokenFileError(
            f"{path} cannot be read ({error.strerror}); `bgan token` writes such a file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TokenFileError(f"{path} is not TOML ({error})") from error
    return {name: _read_token(path, name, table) for name, table in content.items()}


def _read_token(path: Path, name: str, table: object) -> Token:
    if not _NAME.fullmatch(name) or not isinstance(table, Mapping):
        raise TokenFileError(f"{path}: {name!r} is no table of a token; `bgan token` writes such tables")
    try:
        return Token.model_validate(table)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, (name, *problem["loc"])))
        raise TokenFileError(f"{path}: {place}: {problem['msg'].lower()}") from None


def find_token(tokens: Mapping[str, Token], text: str) -> str | None:
    """The name of the token that a caller sent; None if there is none such, in the same time."""
    name = text.rpartition("_")[0].rpartition("_")[2]
    kept = tokens[name].sha256 if name in tokens else _NO_HASH
    return name if hmac.compare_digest(kept, _hash(text)) else None


def make_token(
    path: Path, name: str, *, models: Sequence[str], images_per_minute: int | None, expires: datetime | None
) -> str:
    """A new token, whose hash is added to a file; it is nowhere else. Raises TokenFileError.

    A new file is for its owner alone.
    """
    if not _NAME.fullmatch(name):
        raise TokenFileError(f"{name!r} is no name of a token; use up to 64 letters, digits and hyphens")
    if path.exists() and name in read_tokens(path):
        raise TokenFileError(f"{path} has a token {name}; remove its lines first, or choose another name")
    text = f"{_PREFIX}_{name}_{secrets.token_hex(_SECRET_BYTES)}"
    lines = [f"[{name}]", f'sha256 = "{_hash(text)}"', f"models = {json.dumps(list(models))}"]
    if images_per_minute is not None:
        lines.append(f"images_per_minute = {images_per_minute}")
    if expires is not None:
        lines.append(f"expires = {expires.isoformat()}")
    table = "".join(f"{line}\n" for line in lines)
    _read_token(path, name, tomllib.loads(table)[name])
    try:
        _append(path, table)
    except OSError as error:
        raise TokenFileError(f"{path} cannot be written ({error.strerror})") from error
    return text


def _append(path: Path, table: str) -> None:
    """Add to a file all or nothing, in place: who owns it and who may read it stays as it is."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        added = _gap(file, size) + table.encode()
        try:
            if file.write(added) != len(added):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise


def _gap(file: IO[bytes], size: int) -> bytes:
    """What stands between a file's last line, which may not be ended, and another table."""
    if size == 0:
        return b""
    file.seek(size - 1)
    return b"\n" if file.read(1) == b"\n" else b"\n\n"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
