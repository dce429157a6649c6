"""The log on stderr: one event per line, for people or as JSON."""

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import grpc

from ..errors import printable
from .calls import CallRecord
from .log_writer import LogWriter, StderrPipe

_LEVELS = {"I": logging.INFO, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}
_MAX_MESSAGE = 4000
_MAX_TRACE = 16_000
_libraries = logging.getLogger("stderr")
_own_stderr: list[int] = []


@contextmanager
def writing_log(log_format: str, *, worker: int | None = None) -> Iterator[None]:
    """Write what is logged to stderr while entered; `worker` is the number of one of several processes.

    Nobody waits for the reader of stderr. What libraries such as gRPC's core write to it becomes lines of the log.
    """
    name = "" if worker is None else f"worker {worker} "
    text = f"%(asctime)s %(levelname)s {name}%(message)s"
    formatter = _Json(worker) if log_format == "json" else _Text(text)
    pipe = StderrPipe(_log_of_library)
    writer = LogWriter(pipe.original, lambda count: f"{formatter.format(_dropped(count))}\n")
    handler = logging.StreamHandler(writer)
    handler.setFormatter(formatter)
    handler.addFilter(_is_worth_a_line)
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    _own_stderr.append(pipe.original)
    try:
        yield
    finally:
        _own_stderr.clear()
        pipe.close()
        writer.stop()


def log_target() -> int | None:
    """The file that the log goes to, for a child that writes lines of its own; None: stderr."""
    return next(iter(_own_stderr), None)


def _log_of_library(level: str, text: str) -> None:
    _libraries.log(_LEVELS[level], "%s", text)


def _dropped(count: int) -> logging.LogRecord:
    text = "%d lines of the log were dropped, since its reader stood still"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (count,), None)


class _Text(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name of logging
        call: CallRecord | None = getattr(record, "call", None)
        record.message = printable(record.message if call is None else call.as_text(), _MAX_MESSAGE)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name of logging
        return super().formatException(ei)[-_MAX_TRACE:]


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
            "message": printable(record.getMessage(), _MAX_MESSAGE),
            "logger": record.name,
            **self._worker,
            **({} if call is None else call.as_fields()),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)[-_MAX_TRACE:]
        return json.dumps(line)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    # As an error, with a trace, grpc.aio logs every call that is still open when the server stops, every one whose
    # caller is gone before its end is sent, and metadata that is no UTF-8: a line without a trace here.
    kind = record.exc_info[0] if record.exc_info else None
    if kind is UnicodeDecodeError and record.name.startswith("grpc"):
        record.exc_info = record.exc_text = None
        return True
    return kind is None or not issubclass(kind, asyncio.CancelledError | grpc.aio.InternalError)
