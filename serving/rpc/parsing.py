"""Requests whose bytes are no message. gRPC would end them with UNKNOWN, and log each with a trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

MALFORMED: Final = object()
"""What a method gets in place of a request that cannot be parsed."""


class TolerantServer:
    """What generated code registers services at: a grpc.aio server whose methods may get MALFORMED."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Methods that are looked up by what the handlers say."""
        self._server.add_generic_rpc_handlers([_TolerantHandlers(each) for each in handlers])

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """The same methods by name, which gRPC finds faster."""
        tolerant = {name: _tolerant(handler) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, tolerant)


class _TolerantHandlers(grpc.GenericRpcHandler):
    def __init__(self, handlers: grpc.GenericRpcHandler) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        handler = self._handlers.service(handler_call_details)
        return None if handler is None else _tolerant(handler)


def _tolerant(handler: Any) -> Any:
    return handler._replace(request_deserializer=_parser(handler.request_deserializer))


def _parser(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parse_or_not(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return MALFORMED

    return parse_or_not
