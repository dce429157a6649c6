"""Lets callers in, records their calls, and gives every error its status code, for all methods of all services."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from typing import Any, Final

import grpc
from google.protobuf import duration_pb2
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from .. import errors
from ..telemetry.calls import REQUEST_ID_KEY, CallRecord
from .admission import Ending, open_calls
from .arrivals import Arrivals
from .call_end import at_end, hold_until_end
from .context import ServiceContext

NEXT_INDEX_KEY = "bgan-next-index"
DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "bgan"
"""Of the reasons that errors have."""
INTERNAL_TEXT = "internal error; the server's log says more"
_MIN_SECONDS_FOR_END = 2.0  # for a reader who stood still
_SLACK_SECONDS = 0.05  # a caller whose clock began earlier gives up a moment before ours does
_INVALID: Final = object()  # bytes that are no message; gRPC would log a trace and answer UNKNOWN
_Context = grpc.aio.ServicerContext[Any, Any]
_Method = Callable[[Any, Any], Awaitable[Any]]


def _bad_request(error: errors.InvalidRequestError) -> Any:
    violation = error_details_pb2.BadRequest.FieldViolation
    violations = [violation(field=field, description=text) for field, text in error.violations.items()]
    return error_details_pb2.BadRequest(field_violations=violations)


def _retry_info(error: errors.OverloadedError) -> Any:
    delay = duration_pb2.Duration()
    delay.FromNanoseconds(round(error.retry_after_seconds * 1e9))
    return error_details_pb2.RetryInfo(retry_delay=delay)


STATUSES: dict[type[Exception], tuple[StatusCode, Callable[[Any], Any] | None]] = {
    errors.InvalidRequestError: (StatusCode.INVALID_ARGUMENT, _bad_request),
    errors.ModelNotFoundError: (StatusCode.NOT_FOUND, None),
    errors.RevisionNotServedError: (StatusCode.FAILED_PRECONDITION, None),
    errors.NotReadyError: (StatusCode.UNAVAILABLE, None),
    errors.UnauthenticatedError: (StatusCode.UNAUTHENTICATED, None),
    errors.NotAllowedError: (StatusCode.PERMISSION_DENIED, None),
    errors.OverloadedError: (StatusCode.RESOURCE_EXHAUSTED, _retry_info),
    errors.QuotaSpentError: (StatusCode.RESOURCE_EXHAUSTED, _retry_info),
    errors.RequestLateError: (StatusCode.RESOURCE_EXHAUSTED, _retry_info),
    errors.DeadlinePassedError: (StatusCode.DEADLINE_EXCEEDED, None),
    errors.StreamCutError: (StatusCode.UNAVAILABLE, None),
    errors.StalledReaderError: (StatusCode.UNAVAILABLE, None),
}
"""The code and the details that each error ends a call with, beside its reason; any other error is INTERNAL."""


class CallGuard:
    """Stands around every method of a server's services.

    An error ends the call with its code and details; an unknown one is shown to the log alone. An interceptor
    would do the same at the cost of two more coroutines a call.
    """

    def __init__(self, context: ServiceContext) -> None:
        self._calls = context.calls
        self._metrics = context.metrics
        self._authenticator = context.authenticator
        self._open = context.authenticator.for_open_methods
        self._arrivals = Arrivals(context.settings.stalled_write_seconds)
        self._admission = context.admission
        self._open_calls = open_calls(context.settings)
        self._stalled_seconds = context.settings.stalled_write_seconds

    def add(
        self,
        servicer: object,
        service: ServiceDescriptor,
        server: grpc.aio.Server,
        *,
        open_methods: Collection[str] = (),
        in_order: bool = False,
    ) -> None:
        """Add a servicer to a server.

        open_methods: those that need no token.
        in_order: take the calls of a connection in their order, whatever their methods, which is slower.
        """
        # For gRPC all requests are streams, read here: of others it takes in a whole request, however long that
        # takes, before its sender is asked who he is. The last answer to one message is returned to it, also of a
        # stream: it sends that with the status, at once. It is given bytes, since others could not be written.
        kinds = grpc.stream_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for method in service.methods:
            name, is_open = f"{service.full_name}/{method.name}", method.name in open_methods
            answer = self._answer_all if method.client_streaming else self._answer_one
            guarded = self._guarded(answer(getattr(servicer, method.name)), name, is_open=is_open)
            handlers[method.name] = kinds[method.client_streaming](guarded, _parser(method.input_type))
        if in_order:
            server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service.full_name, handlers)])
        else:
            server.add_registered_method_handlers(service.full_name, handlers)

    def guard(self, method: _Method, name: str, *, is_open: bool = False) -> _Method:
        """A method that takes one message, guarded, for calls that do not come from gRPC.

        It is called with None and a context that has what gRPC's has (`HttpCall`), in a task of its own, and
        returns the bytes of the last answer. name: what records call it. is_open: it needs no token.
        """
        return self._guarded(self._answer_one(method), name, is_open=is_open)

    def _guarded(self, answer_call: _Method, name: str, *, is_open: bool) -> _Method:
        authenticator = self._open if is_open else self._authenticator
        calls, open_calls, admission = self._calls, self._open_calls, self._admission

        async def call(_: object, context: _Context) -> Any:
            task = hold_until_end()
            record = calls.begin(name, context)
            try:
                open_calls.take(record.peer)
                authenticator.enter(context)
                response = await answer_call(record.peer, context)
            except (asyncio.CancelledError, grpc.aio.AbortError) as error:
                self._note_end(error, record, context)
                raise
            except grpc.aio.InternalError as error:  # what was being sent or read failed: the other side is gone
                self._note_end(error, record, context)
                raise asyncio.CancelledError from None  # gRPC would else try to send the end
            except Exception as error:
                await self._fail(error, record, context)
            else:
                self._note_handed_over(record, admission.note_ending(task, record.peer))
                return response

        return call

    def _answer_one(self, method: _Method) -> _Method:
        """A method that takes one message, as a coroutine that receives it and returns its last answer."""
        receive = self._arrivals.receive

        async def answer(connection: str, context: _Context) -> bytes:
            response = await method(_checked(await receive(context, connection)), context)
            return response if isinstance(response, bytes) else response.SerializeToString()

        return answer

    def _answer_all(self, method: Callable[[Any, Any], AsyncIterator[Any]]) -> _Method:
        """A method that takes a stream and answers with one, likewise."""

        async def requests(connection: str, context: _Context) -> AsyncIterator[Any]:
            while (request := await self._arrivals.receive(context, connection)) is not grpc.aio.EOF:
                yield _checked(request)

        async def answer(connection: str, context: _Context) -> None:
            async for response in method(requests(connection, context), context):
                await self._write(response, context)

        return answer

    async def _write(self, response: Any, context: _Context) -> None:
        """Send an answer that no slot is held for. Raises StalledReaderError."""
        try:
            async with asyncio.timeout(self._stalled_seconds):
                await context.write(response.SerializeToString())
        except TimeoutError:
            raise errors.StalledReaderError from None

    def _note_handed_over(self, record: CallRecord, ending: Ending) -> None:
        """Record a call, once its end was taken, or was not."""

        def end() -> None:
            if ending.is_stalled:
                error = errors.StalledReaderError()
                self._metrics.rejected(error)
                self._calls.end(record, StatusCode.UNAVAILABLE, str(error))
            else:
                self._calls.end(record, StatusCode.OK)

        at_end(end)

    def _note_end(self, error: BaseException, record: CallRecord, context: _Context) -> None:
        """Record a call that its caller, its deadline or the method itself ended."""
        if isinstance(error, grpc.aio.AbortError):  # as that of the health does
            self._calls.end(record, context.code())
        elif (seconds := context.time_remaining()) is not None and seconds < _SLACK_SECONDS:
            self._metrics.rejected(errors.DeadlinePassedError())
            self._calls.end(record, StatusCode.DEADLINE_EXCEEDED)
        else:
            self._calls.end(record, StatusCode.CANCELLED)

    async def _fail(self, error: Exception, record: CallRecord, context: _Context) -> None:
        if isinstance(error, NotImplementedError):  # generated code's answer for a method that a servicer lacks
            missing = StatusCode.UNIMPLEMENTED, "this server does not have the method"
            self._calls.end(record, *missing)
            await context.abort(*missing, (status_of(*missing, "METHOD_NOT_FOUND"),))
        self._metrics.rejected(error)
        code, details = STATUSES.get(type(error), (StatusCode.INTERNAL, None))
        is_known = type(error) in STATUSES
        text = str(error) if is_known else INTERNAL_TEXT
        self._calls.end(record, code, text, None if is_known else error)
        # grpc.aio keeps the error in a cycle; through its frames it would keep models that are no longer served.
        error.__traceback__ = None
        request_id = (REQUEST_ID_KEY, record.request_id)
        about = _metadata(error, code, details) if is_known else (status_of(code, text, "INTERNAL"),)
        # The end comes after what was not read; gRPC refuses one that must begin the answer after all.
        try:
            async with asyncio.timeout(max(self._stalled_seconds, _MIN_SECONDS_FOR_END)):
                await context.abort(code, text, (request_id, *about))
        except (TimeoutError, grpc.aio.InternalError):  # or the other side is gone
            if isinstance(error, errors.StalledReaderError):
                self._admission.note_unread(record.peer)


def _metadata(
    error: Any, code: StatusCode, details: Callable[[Any], Any] | None
) -> Iterator[tuple[str, str | bytes]]:
    """What a call ends with beside its code: the details, and where its stream can be resumed."""
    more = () if details is None else (details(error),)
    yield status_of(code, str(error), error.reason.upper(), *more, metadata=error.metadata)
    if error.next_index is not None:
        yield NEXT_INDEX_KEY, str(error.next_index)


def status_of(
    code: StatusCode, text: str, reason: str, *details: Any, metadata: Mapping[str, str] = {}
) -> tuple[str, bytes]:
    """The metadata that tells a call's caller what it ended with: ErrorInfo (AIP-193), and further details."""
    status = status_pb2.Status(code=code.value[0], message=text)
    for each in (error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata), *details):
        status.details.add().Pack(each)
    return DETAILS_KEY, status.SerializeToString()


def _parser(message: Descriptor) -> Callable[[bytes], Any]:
    parse = GetMessageClass(message).FromString

    def parse_or_mark(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return _INVALID

    return parse_or_mark


def _checked(request: Any) -> Any:
    if request is grpc.aio.EOF:
        raise errors.InvalidRequestError({"request": "none was sent; this method takes one message"})
    if request is _INVALID:
        raise errors.InvalidRequestError(
            {"request": "its bytes are no message of this method; see the .proto files"}
        )
    return request
