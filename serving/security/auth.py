"""Who calls, what they may do and how much of it, in one place for every method of every service."""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import struct
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..call_context import CallContext
from ..config.settings import ServerSettings
from ..errors import NotReadyError, QuotaSpentError, SettingError, UnauthenticatedError
from .tokens import Token, find_token, read_tokens
from .watched_files import WatchedFiles

if TYPE_CHECKING:  # it loads cryptography
    from .client_certificates import ClientCertificates

QUOTA_FOLDER_VARIABLE = "BGAN_QUOTA_FOLDER"
"""Tells a worker the folder of the quotas that all workers share."""
_SHARE_TO_WAIT_FOR = 0.1  # of a minute's images: who resumes for less asks too often
_STATE = struct.Struct("dd")  # what is left, and when that was; all processes have the same clock
_UNKNOWN = "the token is unknown or was revoked; ask for another"
_log = logging.getLogger(__name__)


class Quota:
    """Images per minute, refilled steadily up to one minute's.

    A message is sent while anything is left, and may leave a debt, which is waited off.
    """

    def __init__(self, images_per_minute: int, shared: Path | None = None) -> None:
        """`shared`: a file in which other processes count too; it is opened with the first images."""
        self._images_per_minute = images_per_minute
        self._per_second = images_per_minute / 60
        self._shared = shared
        self._file: int | None = None
        self._memory: mmap.mmap | None = None
        self._failure = ""  # what the log said last, so that it says it once

    def take(self, image_count: int, next_index: int | None = None) -> None:
        """Count images that are sent. Raises QuotaSpentError, with `next_index`, if nothing was left.

        Raises NotReadyError while the shared file cannot be opened; each call tries again.
        """
        memory = self._memory
        if memory is None or self._is_removed():
            memory = self._open()
        with self._locked():
            left, counted = _STATE.unpack(memory)
            now = time.monotonic()
            left = min(left + (now - counted) * self._per_second, float(self._images_per_minute))
            memory[:] = _STATE.pack(left - image_count if left > 0 else left, now)
        if left <= 0:
            seconds = (self._images_per_minute * _SHARE_TO_WAIT_FOR - left) / self._per_second
            raise QuotaSpentError(self._images_per_minute, retry_after_seconds=seconds, next_index=next_index)

    def _is_removed(self) -> bool:
        """Whether the file is no longer where other processes look for it: those who tidy /tmp were there."""
        return self._file is not None and os.fstat(self._file).st_nlink == 0

    def _open(self) -> mmap.mmap:
        """The memory of the file, a new one if that is gone, which goes on from what is left."""
        state = self._memory[:] if self._memory else _STATE.pack(self._images_per_minute, time.monotonic())
        try:
            if self._shared is None:
                self._memory = mmap.mmap(-1, _STATE.size)
                self._memory[:] = state
            else:
                self._memory = self._open_shared(self._shared, state)
            self._failure = ""
        except OSError as error:
            text = f"a quota cannot be counted in {self._shared} ({error.strerror}); it is tried again"
            if text != self._failure:
                _log.error("%s", text)
            self._failure = text
            if self._memory is None:
                raise NotReadyError("the images of this token cannot be counted now; try again soon") from error
        return self._memory

    def _open_shared(self, path: Path, state: bytes) -> mmap.mmap:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        weakref.finalize(self, os.close, file)
        with self._locked(file):
            if os.fstat(file).st_size < _STATE.size:
                os.write(file, state)  # not by its memory: on a full disk that ends the process
            memory = mmap.mmap(file, _STATE.size)
        self._file = file
        return memory

    @contextmanager
    def _locked(self, file: int | None = None) -> Iterator[None]:
        """No other process changes what is left meanwhile."""
        file = self._file if file is None else file
        if file is None:
            yield
            return
        import fcntl  # there are several processes on Linux alone

        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


class Caller:
    """The holder of a token, or anyone where no token is asked for."""

    def __init__(self, name: str | None = None, token: Token | None = None, quota: Quota | None = None) -> None:
        self.name = name
        self.token = token
        self._quota = quota
        self._is_known = True

    def forget(self) -> None:
        """Revoke this caller: running streams fail at their next message."""
        self._is_known = False

    def check(self) -> None:
        """Raises UnauthenticatedError if the token has expired or was revoked."""
        if not self._is_known:
            raise UnauthenticatedError(_UNKNOWN)
        if self.token is not None and self.token.has_expired():
            raise UnauthenticatedError("the token has expired; ask for another")

    def take(self, image_count: int, next_index: int | None = None) -> None:
        """Count images that are sent now.

        Raises UnauthenticatedError as `check` does, and QuotaSpentError, with `next_index`, if none were left.
        """
        self.check()
        if self._quota is not None:
            self._quota.take(image_count, next_index)

    @property
    def model_patterns(self) -> tuple[str, ...]:
        """The names of the models that the caller may know of, as shell patterns."""
        return ("*",) if self.token is None else tuple(self.token.models)


class CertifiedCaller(Caller):
    """A caller who has a client certificate too, which must stay good."""

    def __init__(self, holder: Caller, clients: ClientCertificates, certificates: bytes) -> None:
        super().__init__(holder.name, holder.token)
        self._holder = holder
        self._clients = clients
        self._certificates = certificates

    def check(self) -> None:
        """Raises UnauthenticatedError if the token or the certificate has expired or was revoked."""
        self._clients.check(self._certificates)
        self._holder.check()

    def take(self, image_count: int, next_index: int | None = None) -> None:
        """As that of the token's holder."""
        self._clients.check(self._certificates)
        self._holder.take(image_count, next_index)


_caller: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """Who makes the call that this coroutine answers. Raises LookupError outside of an admitted call."""
    return _caller.get()


class Authenticator:
    """Admits everyone, or all whose client certificate is still good."""

    _anyone = Caller()

    def __init__(self, clients: ClientCertificates | None = None) -> None:
        self._clients = clients

    @property
    def for_open_methods(self) -> Authenticator:
        """What admits callers to methods that need no token."""
        return self

    def enter(self, context: CallContext) -> None:
        """Set what `caller` returns for this call. Raises UnauthenticatedError if they are not admitted."""
        self._admit(self._anyone, context)

    def _admit(self, holder: Caller, context: CallContext) -> None:
        if self._clients is not None:
            holder = CertifiedCaller(holder, self._clients, self._clients.of(context))
        holder.check()
        _caller.set(holder)

    async def poll(self) -> None:
        """Read the files again that say who is admitted, if they changed."""


class TokenAuthenticator(Authenticator):
    """Admits the holders of a file's tokens."""

    def __init__(self, path: Path, clients: ClientCertificates | None = None) -> None:
        """Read the file. Raises TokenFileError with one line that says what is wrong with it."""
        super().__init__(clients)
        self._files = WatchedFiles([path], lambda: read_tokens(path), what="tokens")
        self._tokens: dict[str, Token] = {}
        self._callers: dict[str, Caller] = {}
        self._update()

    @property
    def for_open_methods(self) -> Authenticator:
        """What admits callers to methods that need no token."""
        return Authenticator(self._clients)

    def enter(self, context: CallContext) -> None:
        """The caller is the holder of the token in the metadata. Raises UnauthenticatedError."""
        name = find_token(self._tokens, _bearer(context.invocation_metadata()))
        if name is None:
            raise UnauthenticatedError(_UNKNOWN)
        self._admit(self._callers[name], context)

    async def poll(self) -> None:
        """Read the file again if it changed."""
        await asyncio.to_thread(self._files.poll)
        if self._tokens is not self._files.content:
            self._update()

    def _update(self) -> None:
        """Build all callers, then swap them. Unchanged tokens keep what is left of their images."""
        before, tokens = self._callers, self._files.content
        callers = {
            name: before[name] if name in before and before[name].token == token else _make_caller(name, token)
            for name, token in tokens.items()
        }
        self._tokens, self._callers = tokens, callers
        for name, gone in before.items():
            if self._callers.get(name) is not gone:
                gone.forget()
        _log.info("tokens: %s", ", ".join(self._tokens) or "none, so nobody is admitted")


def build_authenticator(settings: ServerSettings, clients: ClientCertificates | None = None) -> Authenticator:
    """Who is admitted; `clients` checks the certificates that they need, if they need any.

    Raises ServingError if the settings or the file of tokens are invalid.
    """
    if settings.tokens is None:
        if settings.health == "token":
            raise SettingError("health is token, but there are no tokens; name their file with --tokens")
        return Authenticator(clients)
    if settings.tls_certificate is None and not _is_loopback(settings.host):
        _log.warning(
            "tokens cross the network in plaintext, and whoever reads one can use it: set --tls-certificate and "
            "--tls-key, or listen on 127.0.0.1 behind a proxy that has TLS"
        )
    return TokenAuthenticator(settings.tokens, clients)


def _make_caller(name: str, token: Token) -> Caller:
    folder = os.environ.get(QUOTA_FOLDER_VARIABLE)
    shared = None if folder is None else Path(folder) / f"{name}-{token.sha256}"
    limit = token.images_per_minute
    return Caller(name, token, None if limit is None else Quota(limit, shared))


def _bearer(metadata: Any) -> str:
    values = [value for key, value in metadata or () if key == "authorization"]
    if len(values) != 1:
        raise UnauthenticatedError(
            "this server wants a token; send it in the metadata, over HTTP in the header, as "
            "`authorization: Bearer TOKEN`, with bgan by --token-file or BGAN_TOKEN"
        )
    scheme, _, text = str(values[0]).partition(" ")
    if scheme.lower() != "bearer":
        raise UnauthenticatedError("the authorization that was sent is not `Bearer TOKEN`")
    return text.strip()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
