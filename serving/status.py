"""Gives every error its status code, in one place for unary and streaming calls."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from .errors import (
    CallError,
    DeadlinePassedError,
    InvalidRequestError,
    ModelNotFoundError,
    NotReadyError,
    OverloadedError,
    RevisionNotServedError,
    StalledReaderError,
    StreamCutError,
)
from .malformed import MALFORMED
from .metrics import Metrics

NEXT_INDEX_KEY = "bgan-next-index"
_DETAILS_KEY = "grpc-status-details-bin"
_INTERNAL_TEXT = "internal error; the server's log says more"
_CODES: dict[type[CallError], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    ModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    RevisionNotServedError: grpc.StatusCode.FAILED_PRECONDITION,
    NotReadyError: grpc.StatusCode.UNAVAILABLE,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlinePassedError: grpc.StatusCode.DEADLINE_EXCEEDED,
    StreamCutError: grpc.StatusCode.UNAVAILABLE,
    StalledReaderError: grpc.StatusCode.UNAVAILABLE,
}
_log = logging.getLogger(__name__)


def guarded(servicer: object, service: ServiceDescriptor, metrics: Metrics) -> Any:
    """The methods of a servicer, whose errors end the call with their code and details.

    Methods of one request are coroutine functions, those of a stream of requests asynchronous generators.
    An interceptor would do the same at the cost of two more coroutines a call.
    """
    methods = {method.name: method for method in service.methods}
    return SimpleNamespace(
        **{
            name: (_guarded_stream if method.client_streaming else _guarded)(getattr(servicer, name), metrics)
            for name, method in methods.items()
        }
    )


def _guarded(
    method: Callable[[Any, Any], Awaitable[Any]], metrics: Metrics
) -> Callable[[Any, Any], Awaitable[Any]]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            _check(request)
            return await method(request, context)
        except grpc.aio.AbortError:
            raise
        except NotImplementedError:  # what generated code makes of a method that a servicer leaves out
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this server does not have the method")
        except Exception as error:
            metrics.rejected(error)
            await _abort(context, error)

    return call


def _guarded_stream(
    method: Callable[[Any, Any], AsyncIterator[Any]], metrics: Metrics
) -> Callable[[Any, Any], AsyncIterator[Any]]:
    """The same for a method that takes a stream and answers with one."""

    async def call(
        requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Any]:
        try:
            async for answer in method(_checked(requests), context):
                yield answer
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            metrics.rejected(error)
            await _abort(context, error)

    return call


async def _checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        _check(request)
        yield request


def _check(request: Any) -> None:
    if request is MALFORMED:
        raise InvalidRequestError({"request": "its bytes are no message of this method; see the .proto files"})


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> None:
    code = _CODES.get(type(error))  # type: ignore[arg-type]
    if code is None:
        _log.error("a call failed", exc_info=error)
    # grpc.aio keeps the error in a cycle; through its frames it would keep models that are served no more.
    error.__traceback__ = None
    if code is None:
        await context.abort(grpc.StatusCode.INTERNAL, _INTERNAL_TEXT)
    status = status_pb2.Status(code=code.value[0], message=str(error), details=_details(error))
    metadata: list[tuple[str, str | bytes]] = [(_DETAILS_KEY, status.SerializeToString())]
    if isinstance(error, StreamCutError):
        metadata.append((NEXT_INDEX_KEY, str(error.next_index)))
    await context.abort(code, str(error), tuple(metadata))


def _details(error: Exception) -> list[any_pb2.Any]:
    details: Message
    if isinstance(error, InvalidRequestError):
        details = error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
                for field, text in error.violations.items()
            ]
        )
    elif isinstance(error, OverloadedError):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(error.retry_after_seconds * 1e9))
        details = error_details_pb2.RetryInfo(retry_delay=delay)
    elif isinstance(error, RevisionNotServedError):
        details = error_details_pb2.ErrorInfo(
            reason="REVISION_NOT_SERVED",
            domain="bgan",
            metadata={
                "model": error.model,
                "revision": error.served_revision,
                "wanted_revision": error.wanted_revision,
            },
        )
    else:
        return []
    packed = any_pb2.Any()
    packed.Pack(details)
    return [packed]
