"""Calls: what is known of each, and its report to the log and to the collector of traces, if there is one."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc

from ..call_context import CallContext
from ..config.settings import ServerSettings

REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/@+=-]{1,128}")
_NO_FAILURES = (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED)
_log = logging.getLogger(__name__)
_current: ContextVar[CallRecord] = ContextVar("call")
current_call = _current.get
"""The `CallRecord` of the call that this task answers."""


@dataclass(slots=True)
class CallRecord:
    """One call. It outlives the call for a while, so it holds words and numbers, no model."""

    method: str
    """package.Service/Method, or GET /the/route."""
    request_id: str
    """The caller's own, or one that was made."""
    peer: str
    """The caller's address, as gRPC writes it."""
    started: float
    """When it began, on the performance counter."""
    model: str = ""
    revision: str = ""
    image_count: int = 0
    code: grpc.StatusCode = grpc.StatusCode.OK
    text: str = ""
    """What the caller is told of an error."""
    seconds: float = 0.0
    span: Any = None
    """What `Tracing.begin` gave for it."""

    def as_text(self) -> str:
        """A line for people."""
        method = self.method.rpartition("/")[2]
        images = f", {self.image_count} images of {self.model}" if self.model else ""
        text = f": {self.text}" if self.text else ""
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


class Tracing:
    """Follows calls from begin to end. This one, for servers without a trace endpoint, does nothing."""

    def begin(self, method: str, metadata: Mapping[str, str | bytes]) -> Any:
        """A call arrived; returns its `CallRecord.span`."""

    def end(self, record: CallRecord) -> None:
        """It ended, as its record says."""

    def stop(self) -> None:
        """Send what is left and return soon."""


class Calls:
    """Gives every call its request id, and reports it when it ends."""

    def __init__(self, settings: ServerSettings, tracing: Tracing) -> None:
        self._logged = settings.log_calls
        self.tracing = tracing

    def begin(self, method: str, context: CallContext) -> CallRecord:
        """A call arrived; its answer, however it ends, will carry the request id."""
        metadata = dict(context.invocation_metadata())
        given = metadata.get(REQUEST_ID_KEY)
        request_id = given if isinstance(given, str) and _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
        record = CallRecord(method, request_id, unquote(context.peer()), time.perf_counter())
        record.span = self.tracing.begin(method, metadata)
        context.set_trailing_metadata(((REQUEST_ID_KEY, record.request_id),))
        _current.set(record)
        return record

    def end(
        self, record: CallRecord, code: grpc.StatusCode, text: str = "", error: Exception | None = None
    ) -> None:
        """It ended; `text` is for its caller, `error` for the log alone, which shows its trace."""
        record.code, record.text, record.seconds = code, text, time.perf_counter() - record.started
        self.tracing.end(record)
        failed = code not in _NO_FAILURES
        if error is not None or self._logged == "all" or (failed and self._logged == "failed"):
            level = logging.INFO if not failed else logging.WARNING if error is None else logging.ERROR
            _log.log(level, "%s %s", record.method, code.name, exc_info=error, extra={"call": record})
