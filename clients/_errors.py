"""What a call can fail with: a SamplingError, and its kinds. The gRPC error is its `__cause__`."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Self

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from ._text import printable

REQUEST_ID_KEY = "x-request-id"
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/@+=-]{1,128}")
_DOMAIN = "bgan"
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
_REVISION_NOT_SERVED = "REVISION_NOT_SERVED"
_STATUS_KEY = "grpc-status-details-bin"
_MAX_TEXT = 1000


class SamplingError(Exception):
    """A call failed; the message says what to do."""

    exit_code = 1

    def __init__(self, message: str, *, code: grpc.StatusCode, next_index: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        """The canonical status code."""
        self.next_index = next_index
        """For streams: the index of the first image that did not arrive, to resume from."""
        self.reason: str | None = None
        """Which error of that code it is, such as QUOTA_SPENT, of those that the proto lists; None: not said."""
        self.request_id: str | None = None
        """The call's id in the server's log: its caller's, or else the one that the server gave it."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are otherwise made again from their message alone: none would come out of a process pool.
        return _restored, (type(self), self.args, self.__dict__)


class InvalidRequestError(SamplingError):
    """INVALID_ARGUMENT: fields of the request are out of range."""

    exit_code = 2

    def __init__(self, message: str, *, violations: Mapping[str, str] | None = None, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.violations = dict(violations or {})
        """What is wrong, by field."""

    @classmethod
    def of(cls, field: str, text: str) -> Self:
        """The error of one field that cannot be sent."""
        return cls(f"{field} {text}", code=grpc.StatusCode.INVALID_ARGUMENT, violations={field: text})


class ModelNotFoundError(SamplingError):
    """NOT_FOUND: the server has no model of that name and version."""


class UnauthenticatedError(SamplingError):
    """UNAUTHENTICATED: the server requires a token that it knows."""


class PermissionDeniedError(SamplingError):
    """PERMISSION_DENIED: the token does not allow that model."""


class ServerUnavailableError(SamplingError):
    """UNAVAILABLE: the server cannot be reached, is loading, or is stopping."""


class ServerOverloadedError(SamplingError):
    """RESOURCE_EXHAUSTED: the server takes no more calls, or the token's images of this minute are spent.

    `reason` tells the two apart: OVERLOADED and QUOTA_SPENT.
    """

    def __init__(self, message: str, *, retry_after_seconds: float | None = None, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.retry_after_seconds = retry_after_seconds
        """How long the server suggests to wait, if it does."""


class DeadlineExceededError(SamplingError):
    """DEADLINE_EXCEEDED: the timeout passed before the answer was complete."""


class RevisionChangedError(SamplingError):
    """FAILED_PRECONDITION: a server has another revision of the stream's model, so other images."""

    def __init__(self, target: str, *, model: str, revision: str, expected_revision: str, next_index: int) -> None:
        super().__init__(
            f"{target}: image {next_index} would come from revision {printable(revision)} of {printable(model)}, "
            f"but the stream is of {printable(expected_revision)}, and the two do not belong together; resume "
            f"from index {next_index} on a server of that revision, or start again",
            code=grpc.StatusCode.FAILED_PRECONDITION,
            next_index=next_index,
        )
        self.revision = revision
        """The revision that the server has."""
        self.expected_revision = expected_revision
        """The revision of the stream."""


_ERRORS: dict[grpc.StatusCode, type[SamplingError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: ModelNotFoundError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNAVAILABLE: ServerUnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ServerOverloadedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
}


def from_rpc_error(
    error: Any, *, target: str, next_index: int | None = None, request_id: str | None = None
) -> SamplingError:
    """The typed error of a call to `target` that failed with gRPC's `error`; `request_id` is its caller's."""
    # grpc.aio's Metadata of 1.73 cannot be made a dict as it is.
    trailing = dict(iter(error.trailing_metadata() or ()))
    status = _status_in(trailing)
    sampling_error = _typed(error, status, target, next_index)
    sampling_error.reason = _reason_in(status)
    sampling_error.request_id = request_id or _request_id_in(trailing)
    # The server's own id is shown where it helps: its log says more about an INTERNAL error than the message.
    if sampling_error.request_id and (request_id or sampling_error.code == grpc.StatusCode.INTERNAL):
        sampling_error.args = (f"{sampling_error} (request {sampling_error.request_id})",)
    return sampling_error


def data_loss(target: str, next_index: int | None, text: str) -> SamplingError:
    """What a call, or a stream at an image, ends with when a server does not keep to the protocol."""
    text = f"{target}: the server {text}; is it another version?"
    return SamplingError(text, code=grpc.StatusCode.DATA_LOSS, next_index=next_index)


def closed_error(next_index: int | None = None) -> SamplingError:
    """What a call, or a stream at an image, ends with when its client is closed."""
    where = "make another" if next_index is None else f"image {next_index} was next"
    text = f"the client was closed; {where}"
    return SamplingError(text, code=grpc.StatusCode.CANCELLED, next_index=next_index)


def _typed(error: Any, status: status_pb2.Status, target: str, next_index: int | None) -> SamplingError:
    for info in _details(status, error_details_pb2.ErrorInfo):
        if info.reason == _REVISION_NOT_SERVED:
            return RevisionChangedError(
                target,
                model=info.metadata["model"],
                revision=info.metadata["revision"],
                expected_revision=info.metadata["wanted_revision"],
                next_index=next_index or 0,
            )
    code = error.code()
    text = f"{target}: {printable(error.details() or code.name, _MAX_TEXT)}"
    kind = _ERRORS.get(code, SamplingError)
    more: dict[str, Any] = {}
    if kind is InvalidRequestError:
        requests = _details(status, error_details_pb2.BadRequest)
        fields = [field for each in requests for field in each.field_violations]
        more = {"violations": {printable(each.field): printable(each.description) for each in fields}}
    elif kind is ServerOverloadedError:
        delays = (info.retry_delay for info in _details(status, error_details_pb2.RetryInfo))
        seconds = (max(0.0, delay.seconds + delay.nanos / 1e9) for delay in delays)
        more = {"retry_after_seconds": next(seconds, None)}
    return kind(text, code=code, next_index=next_index, **more)


def _restored(kind: type[SamplingError], args: tuple[Any, ...], attributes: Mapping[str, Any]) -> SamplingError:
    """An error as it was before it was pickled or copied."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


def _status_in(trailing: Mapping[str, Any]) -> status_pb2.Status:
    """The details that a call ended with; none where they cannot be read."""
    try:
        return status_pb2.Status.FromString(trailing.get(_STATUS_KEY, b""))
    except DecodeError:
        return status_pb2.Status()


def _reason_in(status: status_pb2.Status) -> str | None:
    infos = _details(status, error_details_pb2.ErrorInfo)
    reasons = (info.reason for info in infos if info.domain == _DOMAIN and _REASON.fullmatch(info.reason))
    return next(reasons, None)


def _request_id_in(trailing: Mapping[str, Any]) -> str | None:
    given = trailing.get(REQUEST_ID_KEY)
    return given if isinstance(given, str) and REQUEST_ID.fullmatch(given) else None


def _details(status: status_pb2.Status, kind: Any) -> Iterator[Any]:
    """The details of one kind that a status carries and that can be read."""
    for packed in status.details:
        details = kind()
        try:
            is_one = packed.Unpack(details)
        except DecodeError:
            continue
        if is_one:
            yield details
