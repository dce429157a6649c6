"""Errors in HTTP: problem+json (RFC 9457) that says what gRPC's code and details say."""

import json
import math
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from ..errors import printable
from ..rpc.guard import DETAILS_KEY, NEXT_INDEX_KEY

STATUSES = {
    StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    StatusCode.FAILED_PRECONDITION: HTTPStatus.CONFLICT,
    StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    StatusCode.UNIMPLEMENTED: HTTPStatus.METHOD_NOT_ALLOWED,
    StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
}
"""By gRPC's code; any other is an Internal Server Error."""
MEDIA_TYPE = "application/problem+json"
OIP_MEDIA_TYPE = "application/json"
"""Of the Open Inference Protocol: KServe's client reads the text in `error` of no other kind."""
_FIELDS = {"image_count": "count", "labels": "label"}
"""What addresses call the fields of a request, where they do not call them as the protos do."""


def problem(
    status: int, detail: str, members: Mapping[str, Any] = {}, headers: Mapping[str, str] = {}
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The body and the headers of an answer that is an error."""
    status = HTTPStatus(status)
    content = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": printable(detail)}
    body = json.dumps({**content, "error": content["detail"], **members}, indent=1).encode() + b"\n"
    own = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), "cache-control": "no-store"}
    return body, [(name.encode(), value.encode()) for name, value in {**own, **headers}.items()]


def problem_of(
    code: StatusCode,
    text: str,
    metadata: Iterable[tuple[str, str | bytes]],
    *,
    status: int | None,
    media_type: str,
) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Status, body and headers for what a call of gRPC ends with; `status`: None for that of the code."""
    status = status or STATUSES.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)
    members: dict[str, Any] = {"code": code.name}
    names = {} if media_type == OIP_MEDIA_TYPE else _FIELDS
    headers = {"content-type": media_type}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    for name, value in metadata:
        if name == DETAILS_KEY and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                _add_detail(detail, members, headers, names)
        elif name == NEXT_INDEX_KEY:
            members["next_index"] = value
        elif isinstance(value, str):
            headers[name] = value
    if errors := members.get("errors"):
        text = "; ".join(f"{each['field']}: {each['detail']}" for each in errors)
    return int(status), *problem(status, text, members, headers)


def _add_detail(detail: Any, members: dict[str, Any], headers: dict[str, str], names: Mapping[str, str]) -> None:
    bad, retry, info = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo(), error_details_pb2.ErrorInfo()
    if detail.Unpack(bad):
        members["errors"] = [
            {"field": names.get(each.field, each.field), "detail": each.description}
            for each in bad.field_violations
        ]
    elif detail.Unpack(retry):
        headers["retry-after"] = str(max(1, math.ceil(retry.retry_delay.ToTimedelta().total_seconds())))
    elif detail.Unpack(info):
        members.update({"reason": info.reason, "domain": info.domain, **info.metadata})
