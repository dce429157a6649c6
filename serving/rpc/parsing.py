"""Parses requests. Bytes that are no message get to the method too: gRPC would log a trace and answer UNKNOWN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from ..errors import InvalidRequestError

_INVALID: Final = object()


def request_parser(message: Descriptor) -> Callable[[bytes], Any]:
    """Parses a request; `check_request` then tells whether it could be parsed."""
    parse = GetMessageClass(message).FromString

    def parse_or_mark(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return _INVALID

    return parse_or_mark


def check_request(request: Any) -> None:
    """Raises InvalidRequestError for a request that could not be parsed."""
    if request is _INVALID:
        raise InvalidRequestError({"request": "its bytes are no message of this method; see the .proto files"})
