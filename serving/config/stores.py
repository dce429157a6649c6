"""Stores of files under a URL: folders, S3, Google Cloud Storage and whatever else fsspec opens.

Credentials and endpoints are found as the store's own tools find them. What fails is a StoreError of one line.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..errors import ServingError, StoreError, StoreFault
from .whole_file import whole_file

_ADVICE: dict[StoreFault, str] = {
    "missing": "make it first, or name another",
    "forbidden": "check the credentials, which are found as the store's own tools find them, and what they allow",
    "full": "make room there",
    "away": "is it running, and is the endpoint right?",
}
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_CODES = ("StorageFull", "QuotaExceeded", "InsufficientStorage", "507")
# Exceptions of botocore, aiohttp, requests and httpx, by the names of their classes: none need be installed.
_AWAY = frozenset(
    ("ConnectionError", "ClientConnectionError", "HTTPClientError", "TimeoutError", "Timeout", "TransportError")
)
# Which extra brings the package of a URL.
_EXTRAS = {"s3": "s3", "s3a": "s3", "hf": "hub"}
_FORBIDDEN = frozenset(("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "ProfileNotFound"))
_MAX_REASON = 300
_USER = re.compile(r"(?<=://)[^/]*@")  # and password, which may have an @ too
_LEAST_SECRET = 3  # signs: shorter ones would be found in any text


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of a file system, or a prefix of a bucket."""

    url: str
    files: Any
    """fsspec's AbstractFileSystem, without a cache of its listings."""
    root: str
    """The folder's path there, without a slash at its end."""

    @property
    def shown(self) -> str:
        """The URL, fit for a message."""
        return without_secrets(self.url)

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
                path = Path(self.path(name))
                path.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(path, has_rivals=True) as file:
                    file.write(content)
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
            extra = _EXTRAS.get(url.partition(":")[0])
            advice = f": pip install 'bgan[{extra}]'" if extra else ""
            raise StoreError(f"{without_secrets(url)}: {redacted(str(cause), url)}{advice}") from cause
        if isinstance(cause, ValueError):
            said = redacted(str(cause), url)
            raise StoreError(
                f"{without_secrets(url)} is no URL that fsspec opens ({said}); name a folder, or s3://..."
            ) from cause
        raise
    if not url.partition("://")[2].strip("/") and "://" in url:
        raise StoreError(
            f"{url} names no bucket or repository; add it, as in s3://bucket/models or hf://user/name"
        )
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
    reason = next(iter(redacted(text, url).strip().splitlines()), "")[:_MAX_REASON] or type(error).__name__
    if fault == "missing" and url.endswith(reason):  # its path is all that some libraries say
        reason = "it is not there"
    advice = f"; {_ADVICE[fault]}" if fault in _ADVICE else ""
    if fault == "forbidden" and "://" not in url:
        advice = "; name a folder that this user may read and write"
    return StoreError(f"{without_secrets(url)}: {reason}{advice}", fault=fault)


def without_secrets(url: str) -> str:
    """A URL without users, passwords and keys, and without its query, a signature maybe; a path as it is."""
    return _USER.sub("", url).partition("?")[0] if "://" in url else url


def redacted(text: str, url: str) -> str:
    """What a library says, without the secrets of the URL that it was given, however they are written."""
    if "://" not in url:
        return text
    users, query = _USER.findall(url), url.partition("?")[2]
    secrets = [query, *(part.partition("=")[2] for part in query.split("&"))]
    secrets += [part for user in users for part in (user, user[:-1], user[:-1].partition(":")[2])]
    text = text.replace(url, without_secrets(url))
    for secret in sorted({*secrets, *map(unquote, secrets)}, key=len, reverse=True):
        if len(secret) >= _LEAST_SECRET:
            text = text.replace(secret, "***")
    return text


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
