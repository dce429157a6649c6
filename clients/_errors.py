"""What a call can fail with.

SamplingError
├── InvalidRequestError       INVALID_ARGUMENT: fields are out of range; see `violations`
├── ModelNotFoundError        NOT_FOUND: no model of that name and version
├── UnauthenticatedError      UNAUTHENTICATED: the server wants a token that it knows
├── PermissionDeniedError     PERMISSION_DENIED: the token is not good for that model
├── ServerUnavailableError    UNAVAILABLE: not there, loading, or stopping; try again
├── ServerOverloadedError     RESOURCE_EXHAUSTED: see `retry_after_seconds`
├── DeadlineExceededError     DEADLINE_EXCEEDED: the timeout passed
└── RevisionChangedError      FAILED_PRECONDITION: a server has another revision of the stream's model

Anything else is a plain SamplingError. The gRPC error is its `__cause__`.
"""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2, status_pb2

_REVISION_NOT_SERVED = "REVISION_NOT_SERVED"
_STATUS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "x-request-id"


class SamplingError(Exception):
    """A call failed; the message says what to do."""

    exit_code = 1

    def __init__(self, message: str, *, code: grpc.StatusCode, next_index: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        """The canonical status code."""
        self.next_index = next_index
        """For streams: the index of the first image that did not arrive, to go on from."""
        self.request_id: str | None = None
        """What the server's log calls the call: what its caller named it, or else what the server answered."""


class InvalidRequestError(SamplingError):
    """Fields of the request are out of range."""

    violations: dict[str, str]
    """What is wrong, by field."""


class ModelNotFoundError(SamplingError):
    """The server has no model of that name and version."""


class UnauthenticatedError(SamplingError):
    """The server wants a token, and knows none such."""


class PermissionDeniedError(SamplingError):
    """The token is not good for that model."""


class ServerUnavailableError(SamplingError):
    """The server is not there, still loading, or stopping."""


class ServerOverloadedError(SamplingError):
    """The server takes no more streams, or the token's images of this minute are spent."""

    retry_after_seconds: float | None
    """When the server suggests to try again."""


class DeadlineExceededError(SamplingError):
    """The timeout passed before the answer was complete."""


class RevisionChangedError(SamplingError):
    """A server has another revision of the stream's model: its images are not those of the stream."""

    def __init__(self, target: str, *, model: str, revision: str, expected_revision: str, next_index: int) -> None:
        super().__init__(
            f"{target}: image {next_index} would come from revision {revision} of {model}, but the stream is of "
            f"{expected_revision}, and the two do not belong together; go on from index {next_index} on a server "
            "of that revision, or begin anew",
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
    error: grpc.RpcError, *, target: str, next_index: int | None = None, request_id: str | None = None
) -> SamplingError:
    """The typed error of a failed call to `target`; `request_id` is what its caller named it."""
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    sampling_error = _typed(error, target, next_index)
    sampling_error.request_id = request_id or _answered_id(error)
    # Where nobody named it, its id is told where it helps: the server's log has more than the message.
    if sampling_error.request_id and (request_id or sampling_error.code == grpc.StatusCode.INTERNAL):
        sampling_error.args = (f"{sampling_error} (request {sampling_error.request_id})",)
    return sampling_error


def _typed(error: grpc.Call | grpc.aio.AioRpcError, target: str, next_index: int | None) -> SamplingError:
    code = error.code()
    status = _status(error)
    if found := _other_revision(status):
        return RevisionChangedError(
            target,
            model=found["model"],
            revision=found["revision"],
            expected_revision=found["wanted_revision"],
            next_index=next_index or 0,
        )
    text = error.details() or code.name
    kind = _ERRORS.get(code, SamplingError)
    sampling_error = kind(f"{target}: {text}", code=code, next_index=next_index)
    if isinstance(sampling_error, InvalidRequestError):
        sampling_error.violations = _violations(status)
    if isinstance(sampling_error, ServerOverloadedError):
        sampling_error.retry_after_seconds = _retry_after(status)
    return sampling_error


def _answered_id(error: grpc.Call | grpc.aio.AioRpcError) -> str | None:
    for key, value in error.trailing_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str):
            return value
    return None


def _status(error: grpc.Call | grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == _STATUS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return status_pb2.Status()


def _other_revision(status: status_pb2.Status) -> dict[str, str] | None:
    for packed in status.details:
        details = error_details_pb2.ErrorInfo()
        if packed.Unpack(details) and details.reason == _REVISION_NOT_SERVED:
            return dict(details.metadata)
    return None


def _violations(status: status_pb2.Status) -> dict[str, str]:
    found: dict[str, str] = {}
    for packed in status.details:
        details = error_details_pb2.BadRequest()
        if packed.Unpack(details):
            found |= {violation.field: violation.description for violation in details.field_violations}
    return found


def _retry_after(status: status_pb2.Status) -> float | None:
    for packed in status.details:
        details = error_details_pb2.RetryInfo()
        if packed.Unpack(details):
            return float(details.retry_delay.ToNanoseconds() / 1e9)
    return None
