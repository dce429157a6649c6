"""Errors of the server. Those for callers know nothing of gRPC; `status` gives each its code.

ServingError              for whoever runs a command: one line, nonzero exit
├── ModelFileError        a model file cannot be served
├── StartError            a setting, a folder or a port keeps the server from starting
├── GenerationError       images cannot be generated into a file
├── NotServingError       a server that was asked for its health is not well, or does not answer
├── MetricsError          a server's metrics cannot be read
└── Interrupted           a signal stopped the generation, after it was saved

CallError                 for callers
├── InvalidRequestError     fields of the request are out of range
├── ModelNotFoundError      no model of that name and version
├── RevisionNotServedError  the model has another revision than the one that was asked for
├── NotReadyError           models are still loading, or the server is stopping
├── OverloadedError         too many calls at once
├── DeadlinePassedError     the caller no longer waits
└── StreamCutError          the stream ended at an image boundary; the server stops
    └── StalledReaderError  the same, because its reader stood still
"""

from __future__ import annotations

from collections.abc import Mapping


class ServingError(Exception):
    """A message for whoever runs a command; the command line exits with `exit_code`."""

    exit_code = 1


class ModelFileError(ServingError):
    """A model file cannot be served; the message says which and why."""


class StartError(ServingError):
    """A setting, a folder or a port keeps the server from starting."""


class GenerationError(ServingError):
    """Images cannot be generated into a file; the message says what keeps them and what to do."""


class NotServingError(ServingError):
    """A server, or its model, is not SERVING or does not answer; the message says which."""


class MetricsError(ServingError):
    """A server's metrics cannot be read; the message says where, why and what to do."""


class Interrupted(ServingError):  # noqa: N818 - it is no error of the program
    """A signal stopped the generation, after it was saved."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class CallError(Exception):
    """A call cannot be answered; the message tells the caller what to do."""


class InvalidRequestError(CallError):
    """Fields of the request are out of range."""

    def __init__(self, violations: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {text}" for field, text in violations.items()))
        self.violations = dict(violations)
        """What is wrong, by field."""


class ModelNotFoundError(CallError):
    """No model of that name and version."""


class RevisionNotServedError(CallError):
    """The model has another revision than the one that was asked for."""

    def __init__(self, model: str, *, wanted: str, served: str) -> None:
        super().__init__(
            f"model {model!r} is not served in revision {wanted}; there is {served}, whose images do not belong "
            "to the same streams; begin anew, or ask a server that has it"
        )
        self.model = model
        self.wanted_revision = wanted
        self.served_revision = served


class NotReadyError(CallError):
    """Models are still loading, or the server is stopping."""


class OverloadedError(CallError):
    """Too many calls at once."""

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DeadlinePassedError(CallError):
    """The caller no longer waits."""


class StreamCutError(CallError):
    """The stream ended at an image boundary, because the server stops."""

    reason = "the server is stopping"

    def __init__(self, next_index: int) -> None:
        super().__init__(f"{self.reason}; go on from first_index {next_index}")
        self.next_index = next_index


class StalledReaderError(StreamCutError):
    """The stream ended because its reader took nothing for too long."""

    reason = "the images sent were not read for too long"
