"""Gives every error its status code, in one place for unary and streaming calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from ..errors import (
    CallError,
    DeadlinePassedError,
    InvalidRequestError,
    ModelNotFoundError,
    NotAllowedError,
    NotReadyError,
    OverloadedError,
    QuotaSpentError,
    RevisionNotServedError,
    StalledReaderError,
    StreamCutError,
    UnauthenticatedError,
)
from ..security.auth import Authenticator
from ..telemetry.call_record import CallRecord
from ..telemetry.calls import REQUEST_ID_KEY, Calls
from ..telemetry.metrics import Metrics
from .deadline import is_over
from .parsing import MALFORMED

NEXT_INDEX_KEY = "bgan-next-index"
_DETAILS_KEY = "grpc-status-details-bin"
_UNIMPLEMENTED_TEXT = "this server does not have the method"
_INTERNAL_TEXT = "internal error; the server's log says more"
_CODES: dict[type[CallError], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    ModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    RevisionNotServedError: grpc.StatusCode.FAILED_PRECONDITION,
    NotReadyError: grpc.StatusCode.UNAVAILABLE,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    NotAllowedError: grpc.StatusCode.PERMISSION_DENIED,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    QuotaSpentError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlinePassedError: grpc.StatusCode.DEADLINE_EXCEEDED,
    StreamCutError: grpc.StatusCode.UNAVAILABLE,
    StalledReaderError: grpc.StatusCode.UNAVAILABLE,
}


def guarded(
    servicer: object, service: ServiceDescriptor, metrics: Metrics, calls: Calls, access: Authenticator
) -> Any:
    """The methods of a servicer, for those whom `access` lets in.

    Their errors end the call with their code and details; of one that is not known a caller is told nothing.
    Methods of one request are coroutine functions, those of a stream of requests asynchronous generators.
    An interceptor would do the same at the cost of two more coroutines a call.
    """

    def guard(method: MethodDescriptor) -> Callable[[Any, Any], Any]:
        name = f"{service.full_name}/{method.name}"
        guard_one = _guarded_stream if method.client_streaming else _guarded
        return guard_one(getattr(servicer, method.name), name, metrics, calls, access)

    return SimpleNamespace(**{method.name: guard(method) for method in service.methods})


def _guarded(
    method: Callable[[Any, Any], Awaitable[Any]], name: str, metrics: Metrics, calls: Calls, access: Authenticator
) -> Callable[[Any, Any], Awaitable[Any]]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        record = calls.begin(name, context)
        try:
            access.enter(context)
            _check(request)
            answer = await method(request, context)
        except asyncio.CancelledError:
            if is_over(context):
                metrics.rejected(DeadlinePassedError())
                calls.end(record, grpc.StatusCode.DEADLINE_EXCEEDED)
            else:
                calls.end(record, grpc.StatusCode.CANCELLED)
            raise
        except grpc.aio.AbortError:  # the method has ended the call itself, as that of the health does
            calls.end(record, context.code())
            raise
        except NotImplementedError:  # what generated code makes of a method that a servicer leaves out
            calls.end(record, grpc.StatusCode.UNIMPLEMENTED, _UNIMPLEMENTED_TEXT)
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, _UNIMPLEMENTED_TEXT)
        except Exception as error:
            await _fail(error, record, context, metrics, calls)
        calls.end(record, grpc.StatusCode.OK)
        return answer

    return call


def _guarded_stream(
    method: Callable[[Any, Any], AsyncIterator[Any]],
    name: str,
    metrics: Metrics,
    calls: Calls,
    access: Authenticator,
) -> Callable[[Any, Any], AsyncIterator[Any]]:
    """The same for a method that takes a stream and answers with one."""

    async def call(
        requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Any]:
        record = calls.begin(name, context)
        try:
            access.enter(context)
            async for answer in method(_checked(requests), context):
                yield answer
        except (asyncio.CancelledError, GeneratorExit):
            calls.end(record, grpc.StatusCode.CANCELLED)
            raise
        except grpc.aio.AbortError:
            calls.end(record, context.code())
            raise
        except Exception as error:
            await _fail(error, record, context, metrics, calls)
        calls.end(record, grpc.StatusCode.OK)

    return call


async def _checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        _check(request)
        yield request


def _check(request: Any) -> None:
    if request is MALFORMED:
        raise InvalidRequestError({"request": "its bytes are no message of this method; see the .proto files"})


async def _fail(
    error: Exception,
    record: CallRecord,
    context: grpc.aio.ServicerContext[Any, Any],
    metrics: Metrics,
    calls: Calls,
) -> NoReturn:
    """End a call with what is known of its error."""
    metrics.rejected(error)
    code = _CODES.get(type(error))  # type: ignore[arg-type]
    if code is None:
        calls.end(record, grpc.StatusCode.INTERNAL, _INTERNAL_TEXT, error)
    else:
        calls.end(record, code, str(error))
    await _abort(context, error, code, (REQUEST_ID_KEY, record.request_id))


async def _abort(
    context: grpc.aio.ServicerContext[Any, Any],
    error: Exception,
    code: grpc.StatusCode | None,
    request_id: tuple[str, str],
) -> NoReturn:
    # grpc.aio keeps the error in a cycle; through its frames it would keep models that are served no more.
    error.__traceback__ = None
    if code is None:
        await context.abort(grpc.StatusCode.INTERNAL, _INTERNAL_TEXT, (request_id,))
    status = status_pb2.Status(code=code.value[0], message=str(error), details=_details(error))
    metadata: list[tuple[str, str | bytes]] = [request_id, (_DETAILS_KEY, status.SerializeToString())]
    if isinstance(error, StreamCutError | QuotaSpentError) and error.next_index is not None:
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
