"""Files behind a URL that fsspec opens, such as s3://bucket/models; its libraries are loaded for a URL alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from .errors import UserError
from .files import write_atomically

_USER = re.compile(r"(?<=://)[^/]*@")  # and password, which may have an @ too
_LEAST_SECRET = 3  # signs: shorter ones would be found in any text


class StoreError(UserError):
    """A file behind a URL cannot be read or written; the message says where, why and what to do."""


def is_url(text: str) -> bool:
    """Whether a text names no path, but what a library of stores opens."""
    return "://" in text


def without_secrets(url: str) -> str:
    """A URL without users, passwords and keys, and without its query, a signature maybe; a path as it is."""
    return _USER.sub("", url).partition("?")[0] if is_url(url) else url


class Store:
    """A folder behind a URL. Raises StoreError, as all that it does, where no library here opens it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.shown = without_secrets(url).rstrip("/")
        """The URL, fit for a message."""
        with self._explained("opened"):
            import fsspec

            self._files, root = fsspec.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        self._root = str(root).rstrip("/")

    def fetch(self, name: str, folder: Path) -> Path | None:
        """Read a file into a local folder; None where there is none, though perhaps a place for it."""
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._explained("read"):
            try:
                self._files.get_file(f"{self._root}/{name}", str(path))
            except FileNotFoundError:
                path.unlink(missing_ok=True)
                return None
        return path

    def send(self, path: Path, name: str) -> str:
        """Write a local file there, whole or not at all; returns its URL."""
        with self._explained("written to"):
            if "file" in self._files.protocol:  # which would be seen while it is written
                write_atomically(Path(f"{self._root}/{name}"), path.read_bytes())
            else:
                self._files.pipe_file(f"{self._root}/{name}", path.read_bytes())
        return f"{self.shown}/{name}"

    @contextmanager
    def naming(self, folder: Path) -> Iterator[None]:
        """Name this store, and no local folder, in what a user is told of files in that folder."""
        try:
            yield
        except UserError as error:
            error.args = (str(error).replace(str(folder), self.shown),)
            raise

    @contextmanager
    def _explained(self, done: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of whatever library the store has
            said = " ".join(_redacted(str(error) or type(error).__name__, self._url).split())
            raise StoreError(f"{self.shown} {_explain(error, done)} ({said}); {_advice(error)}") from error


def _redacted(text: str, url: str) -> str:
    """What a library says, without the secrets of the URL that it was given, however they are written."""
    users, query = _USER.findall(url), url.partition("?")[2]
    secrets = [query, *(part.partition("=")[2] for part in query.split("&"))]
    secrets += [part for user in users for part in (user, user[:-1], user[:-1].partition(":")[2])]
    text = text.replace(url, without_secrets(url))
    for secret in sorted({*secrets, *map(unquote, secrets)}, key=len, reverse=True):
        if len(secret) >= _LEAST_SECRET:
            text = text.replace(secret, "***")
    return text


def _explain(error: Exception, done: str) -> str:
    if isinstance(error, ImportError):
        return "needs a package that is not here"
    if isinstance(error, FileNotFoundError):
        return "is not there"
    return f"may not be {done}" if _is_refused(error) else f"cannot be {done}"


def _advice(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "pip install 'bgan[s3]' has that of s3://"
    if isinstance(error, FileNotFoundError):
        return "make its bucket, or name another"
    if _is_refused(error):
        return "check the credentials of this user or machine"
    return "try again, or name another with --models"


def _is_refused(error: Exception) -> bool:
    is_status = getattr(error, "status", 0) in (401, 403)
    return is_status or isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError"
