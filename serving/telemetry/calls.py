"""Reports every call: to the log, and to the collector of traces if there is one."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Any
from urllib.parse import unquote

import grpc

from ..config.settings import ServerSettings
from .call_record import CallRecord, set_current_call
from .tracing import Tracing

REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/@+=-]{1,128}")
_NO_FAILURES = (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED)
_log = logging.getLogger(__name__)


class Calls:
    """Gives every call its request id, and reports it when it ends."""

    def __init__(self, settings: ServerSettings, tracing: Tracing) -> None:
        self._logged = settings.log_calls
        self._tracing = tracing

    def begin(self, method: str, context: Any) -> CallRecord:
        """A call arrived; its answer, however it ends, will carry the request id."""
        metadata = dict(context.invocation_metadata())
        record = CallRecord(method, _request_id(metadata), unquote(context.peer()), time.perf_counter())
        record.span = self._tracing.begin(method, metadata)
        context.set_trailing_metadata(((REQUEST_ID_KEY, record.request_id),))
        set_current_call(record)
        return record

    def end(
        self, record: CallRecord, code: grpc.StatusCode, text: str = "", error: Exception | None = None
    ) -> None:
        """It ended; `text` is for its caller, `error` for the log alone, which shows its trace."""
        record.code, record.text, record.seconds = code, text, time.perf_counter() - record.started
        self._tracing.end(record)
        failed = code not in _NO_FAILURES
        if error is not None or self._logged == "all" or (failed and self._logged == "failed"):
            level = logging.INFO if not failed else logging.WARNING if error is None else logging.ERROR
            _log.log(level, "%s %s", record.method, code.name, exc_info=error, extra={"call": record})

    def stop(self) -> None:
        """Send the traces that are left."""
        self._tracing.stop()


def _request_id(metadata: dict[str, str | bytes]) -> str:
    given = metadata.get(REQUEST_ID_KEY)
    return given if isinstance(given, str) and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
