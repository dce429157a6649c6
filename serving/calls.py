"""What is known of a call while it is answered, and who is told of it: the log, and traces where they are on."""

from __future__ import annotations

import logging
import re
import time
import uuid
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc

from .config import ServerSettings
from .engine import Engine
from .text import printable
from .tracing import Tracing

REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/@+=-]{1,128}")
_NO_FAILURES = (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED)
_current: ContextVar[CallRecord] = ContextVar("call")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class CallRecord:
    """One call. It outlives the call for a while, so it holds words and numbers, no model."""

    method: str
    """package.Service/Method."""
    request_id: str
    """The caller's own, or one that was made."""
    peer: str
    """The caller's address, as gRPC writes it."""
    started: float
    """When it began, on the performance counter."""
    model: str = ""
    revision: str = ""
    image_count: int = 0
    """Images sent so far."""
    code: grpc.StatusCode = grpc.StatusCode.OK
    text: str = ""
    """What the caller is told of an error."""
    seconds: float = 0.0
    """How long it took."""
    span: Any = None
    """What `Tracing.begin` gave for it."""

    def serves(self, engine: Engine) -> None:
        """Note the model that answers."""
        self.model, self.revision = engine.manifest.name, engine.revision

    def as_text(self) -> str:
        """A line for people."""
        method = self.method.rpartition("/")[2]
        images = f", {self.image_count} images of {self.model}" if self.model else ""
        text = f": {printable(self.text)}" if self.text else ""
        who = f"request {self.request_id} from {self.peer}"
        return f"{method} {self.code.name} in {self.seconds:.3f} s{images}, {who}{text}"

    def as_fields(self) -> dict[str, Any]:
        """The same for programs."""
        fields = {
            "event": "call",
            "request_id": self.request_id,
            "method": self.method,
            "code": self.code.name,
            "seconds": round(self.seconds, 6),
            "peer": self.peer,
            "model": self.model,
            "revision": self.revision,
            "images": self.image_count,
            "error": self.text,
        }
        return {name: value for name, value in fields.items() if value != ""}


def current_call() -> CallRecord:
    """The call that this task answers."""
    return _current.get()


class Calls:
    """Gives every call its request id, and tells of it when it ends."""

    def __init__(self, settings: ServerSettings, tracing: Tracing) -> None:
        self._logged = settings.log_calls
        self._tracing = tracing

    def begin(self, method: str, context: Any) -> CallRecord:
        """A call arrived; its answer, however it ends, will carry the request id."""
        metadata = dict(context.invocation_metadata())
        record = CallRecord(method, _request_id(metadata), unquote(context.peer()), time.perf_counter())
        record.span = self._tracing.begin(method, metadata)
        context.set_trailing_metadata(((REQUEST_ID_KEY, record.request_id),))
        _current.set(record)
        return record

    def end(
        self, record: CallRecord, code: grpc.StatusCode, text: str = "", error: Exception | None = None
    ) -> None:
        """It ended; `text` is what its caller is told, `error` what the log alone is to show with its trace."""
        record.code, record.text, record.seconds = code, text, time.perf_counter() - record.started
        self._tracing.end(record)
        if error is not None or self._is_logged(code):
            level = logging.INFO if code in _NO_FAILURES else logging.WARNING if error is None else logging.ERROR
            _log.log(level, "%s %s", record.method, code.name, exc_info=error, extra={"call": record})

    def _is_logged(self, code: grpc.StatusCode) -> bool:
        return self._logged == "all" or (self._logged == "failed" and code not in _NO_FAILURES)


def _request_id(metadata: dict[str, str | bytes]) -> str:
    given = metadata.get(REQUEST_ID_KEY)
    return given if isinstance(given, str) and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
