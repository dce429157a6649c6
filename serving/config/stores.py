"""Stores of files under a URL: folders, S3, Google Cloud Storage and whatever else fsspec opens.

Credentials and endpoints are found as the store's own tools find them. What fails is a StoreError of one line.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ServingError, StoreError, StoreFault

_ADVICE: dict[StoreFault, str] = {
    "missing": "make it first, or name another",
    "forbidden": "check the credentials, which are found as the store's own tools find them, and what they allow",
    "full": "make room there",
    "away": "is it running, and is the endpoint right?",
}
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_CODES = ("StorageFull", "QuotaExceeded", "InsufficientStorage", "507")
# Exceptions of botocore, aiohttp and requests, by the names of their classes: none of them need be installed.
_AWAY = frozenset(("ConnectionError", "ClientConnectionError", "HTTPClientError", "TimeoutError", "Timeout"))
_FORBIDDEN = frozenset(("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "ProfileNotFound"))
_MAX_REASON = 300


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of a file system, or a prefix of a bucket."""

    url: str
    files: Any
    """fsspec's AbstractFileSystem, without a cache of its listings."""
    root: str
    """The folder's path there, without a slash at its end."""

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        protocol = self.files.protocol
        return "file" in ([protocol] if isinstance(protocol, str) else protocol)

    def path(self, name: str) -> str:
        """The path of a file, as `files` takes it."""
        return f"{self.root}/{name}"

    def read(self, name: str) -> bytes | None:
        """The content of a file; None: there is none. Raises StoreError."""
        try:
            with store_errors(self.url):
                content: bytes = self.files.cat_file(self.path(name))
                return content
        except StoreError as error:
            if error.fault == "missing":
                return None
            raise

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all; one of that name is replaced. Raises StoreError."""
        with store_errors(self.url):
            if self.is_local:
                _write_local(Path(self.path(name)), content)
            else:
                self.files.pipe_file(self.path(name), content)

    def names(self, folder: str) -> set[str]:
        """The names of the files in one of its folders; none where that is not there. Raises StoreError."""
        try:
            with store_errors(self.url):
                return {path.rsplit("/", 1)[-1] for path in self.files.ls(self.path(folder), detail=False)}
        except StoreError as error:
            if error.fault == "missing":
                return set()
            raise


def open_store(url: str) -> Store:
    """The store of a URL, or of a folder's path. Raises StoreError where no package opens such a URL."""
    from fsspec.core import url_to_fs

    try:
        with store_errors(url):
            files, root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    except StoreError as error:
        cause = error.__cause__
        if isinstance(cause, ImportError):
            advice = ": pip install 'bgan[s3]'" if url.startswith(("s3:", "s3a:")) else ""
            raise StoreError(f"{url}: {cause}{advice}") from cause
        if isinstance(cause, ValueError):
            raise StoreError(f"{url} is no URL that fsspec opens ({cause}); name a folder, or s3://...") from cause
        raise
    return Store(url, files, root.rstrip("/"))


@contextmanager
def store_errors(url: str) -> Iterator[None]:
    """Turn what a store's library raises into a StoreError of one line."""
    try:
        yield
    except (ServingError, MemoryError):
        raise
    except Exception as error:  # each library has its own tree of them
        raise store_error(url, error) from error


def store_error(url: str, error: BaseException) -> StoreError:
    """What an exception of a store's library says, in one line."""
    fault = _fault(error)
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    reason = next(iter(text.strip().splitlines()), "")[:_MAX_REASON] or type(error).__name__
    if fault == "missing" and url.endswith(reason):  # its path is all that some libraries say
        reason = "it is not there"
    advice = f"; {_ADVICE[fault]}" if fault in _ADVICE else ""
    return StoreError(f"{url}: {reason}{advice}", fault=fault)


def _fault(error: BaseException | None) -> StoreFault:
    while error is not None:
        names = {kind.__name__ for kind in type(error).__mro__}
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return "missing"
        if isinstance(error, PermissionError) or names & _FORBIDDEN or getattr(error, "status", 0) in (401, 403):
            return "forbidden"
        if getattr(error, "errno", None) in _FULL or any(code in str(error) for code in _FULL_CODES):
            return "full"
        if names & _AWAY:
            return "away"
        error = error.__cause__ or error.__context__
    return "other"


def _write_local(path: Path, content: bytes) -> None:
    """Write under another name, see it to disk, and rename: a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
