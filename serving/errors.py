"""Errors of the server: a ServingError is for whoever runs a command, a CallError for the caller of a method.

Neither knows gRPC: `rpc.guard` has the status code of each CallError, and the details that it is sent with.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import ClassVar, Literal

# In bytes. All that a call ends with must fit into 8 KiB, where a text takes up to three times as many: else gRPC
# tells its callers of another code.
_MAX_TEXT = 800
_MAX_FOREIGN = 200
_MAX_FIELD = 64
_MAX_VIOLATION = 300
_MAX_VIOLATIONS = 6


def printable(text: str, most: int = _MAX_TEXT) -> str:
    """About the first `most` bytes of a text, with what cannot be printed escaped.

    So it is one line and forges no other, however long it is and whoever wrote it.
    """
    shown = text[:most]
    if not shown.isprintable():
        shown = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in shown)
    cut = shown.encode()[:most].decode(errors="ignore")
    return cut if len(cut) >= len(shown) and len(text) <= most else f"{cut}... ({len(text)} characters)"


def foreign(text: str) -> str:
    """What a caller sent, short enough to be put into a message."""
    return printable(text, _MAX_FOREIGN)


class ServingError(Exception):
    """A message for whoever runs a command; the command line exits with `exit_code`."""

    exit_code = 1


class ModelFileError(ServingError):
    """A model file cannot be served; the message says which and why."""

    def __init__(self, message: str, *, detail: str = "", may_pass: bool = False) -> None:
        """`detail` is what a library said of it: for the log, not for callers.

        may_pass: it may be the fault of the moment, such as no memory, and not the file's.
        """
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.may_pass = may_pass

    def __str__(self) -> str:
        return f"{self.message} ({self.detail})" if self.detail else self.message


class UsageError(ServingError):
    """An option or argument has a value that is wrong whatever there is; the message says what is allowed."""

    exit_code = 2


class StartError(ServingError):
    """A setting, a file, a folder or a port keeps the server from starting."""


class SettingError(UsageError, StartError):
    """A setting has an invalid value, or two do not go together; the message says where it came from."""


class ServerFaultError(ServingError):
    """A part of a running server ended by itself, and the server with it; the log says more."""


class TokenFileError(ServingError):
    """A token cannot be made, or a file of tokens cannot be read or written."""


class GenerationError(ServingError):
    """Images cannot be generated into a file; the message says why and what to do."""


StoreFault = Literal["missing", "forbidden", "full", "away", "other"]
"""What is wrong with a store, as far as that is known."""


class StoreError(ServingError):
    """A store of files, or something in it, cannot be used; the message says where, why and what to do."""

    def __init__(self, message: str, *, fault: StoreFault = "other") -> None:
        super().__init__(message)
        self.fault = fault


class NotServingError(ServingError):
    """A server, or its model, is not SERVING or does not answer; the message says which."""

    def __init__(self, message: str, *, status: str = "UNREACHABLE") -> None:
        """`status`: that of the health protocol, or UNREACHABLE."""
        super().__init__(message)
        self.status = status


class MetricsError(ServingError):
    """A server's metrics cannot be read; the message says where, why and what to do."""


class Interrupted(ServingError):  # noqa: N818 - it is no error of the program
    """A signal stopped the generation, after it was saved."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class CallError(Exception):
    """A call cannot be answered; the message tells the caller what to do.

    Answers, logs and traces all get its text from here, so it is bounded and escaped here, whatever was sent.
    """

    kinds: ClassVar[list[type[CallError]]] = []
    reason: ClassVar[str]
    """What metrics call it, and in capitals its caller."""
    metadata: Mapping[str, str] = {}
    """What the caller's program is told beside the reason."""
    next_index: int | None = None
    """Where a stream can be resumed; None: the call was no stream, or had sent nothing."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))

    def __init_subclass__(cls, *, reason: str) -> None:
        super().__init_subclass__()
        cls.reason = reason
        CallError.kinds.append(cls)


class InvalidRequestError(CallError, reason="invalid_request"):
    """Fields of the request are out of range."""

    def __init__(self, violations: Mapping[str, str]) -> None:
        first = islice(violations.items(), _MAX_VIOLATIONS)
        self.violations = {printable(field, _MAX_FIELD): printable(text, _MAX_VIOLATION) for field, text in first}
        super().__init__("; ".join(f"{field}: {text}" for field, text in self.violations.items()))


class ModelNotFoundError(CallError, reason="model_not_found"):
    """No model has that name and version."""


class RevisionNotServedError(CallError, reason="revision_not_served"):
    """The model has another revision than the one that was asked for."""

    def __init__(self, model: str, *, wanted: str, served: str) -> None:
        wanted = foreign(wanted)
        super().__init__(
            f"model {model!r} is not served in revision {wanted}; there is {served}, whose images belong to other "
            "streams; start again, or ask a server that has it"
        )
        self.metadata = {"model": model, "revision": served, "wanted_revision": wanted}


class NotReadyError(CallError, reason="not_ready"):
    """Models are still loading, or the server is stopping."""


class UnauthenticatedError(CallError, reason="unauthenticated"):
    """The call has no token that is known here."""


class NotAllowedError(CallError, reason="not_allowed"):
    """The call's token is good, but not for this model."""


class OverloadedError(CallError, reason="overloaded"):
    """Too many calls at once."""

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QuotaSpentError(OverloadedError, reason="quota_spent"):
    """The token's images of this minute are spent."""

    def __init__(self, images_per_minute: int, *, retry_after_seconds: float, next_index: int | None) -> None:
        super().__init__(
            f"this token is good for {images_per_minute} images a minute, and they are spent; "
            f"try again in {retry_after_seconds:.1f} s",
            retry_after_seconds=retry_after_seconds,
        )
        self.metadata = {"images_per_minute": str(images_per_minute)}
        self.next_index = next_index


class RequestLateError(OverloadedError, reason="request_late"):
    """The request did not arrive in time, or others could not wait for it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the request did not arrive whole within {seconds:g} s, or sooner where others waited; send it again",
            retry_after_seconds=1.0,
        )


class DeadlinePassedError(CallError, reason="deadline_passed"):
    """The caller no longer waits."""


class StreamCutError(CallError, reason="stopping"):
    """The stream ended at an image boundary, because the server stops."""

    _cause = "the server is stopping"

    def __init__(self, next_index: int | None = None) -> None:
        super().__init__(
            self._cause if next_index is None else f"{self._cause}; resume from first_index {next_index}"
        )
        self.next_index = next_index


class StalledReaderError(StreamCutError, reason="stalled_reader"):
    """The call ended because its reader took nothing for too long."""

    _cause = "what was sent was not read for too long"
