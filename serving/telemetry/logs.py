"""The log on stderr: one event per line, for people or as JSON."""

import asyncio
import json
import logging
from datetime import UTC, datetime
from typing import Any

from .calls import CallRecord


def start_log(log_format: str, *, worker: int | None = None) -> None:
    """Write what is logged from now on; `worker` is the number of one of several processes."""
    handler = logging.StreamHandler()
    name = "" if worker is None else f"worker {worker} "
    text = f"%(asctime)s %(levelname)s {name}%(message)s"
    handler.setFormatter(_Json(worker) if log_format == "json" else _Text(text))
    handler.addFilter(_is_no_cancellation)
    logging.basicConfig(handlers=[handler], level=logging.INFO)


class _Text(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name of logging
        if call := getattr(record, "call", None):
            record.message = call.as_text()
        return super().formatMessage(record)


class _Json(logging.Formatter):
    def __init__(self, worker: int | None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object, its time in UTC."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        call: CallRecord | None = getattr(record, "call", None)
        line: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
            **self._worker,
            **({} if call is None else call.as_fields()),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    # grpc.aio logs every call that is still open when the server stops, with a trace, as an error.
    return not (record.exc_info and record.exc_info[0] is asyncio.CancelledError)
