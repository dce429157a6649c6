"""A connection to a server, and how a call on it is opened and ended."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import grpc

from .._addresses import host_port
from .._channels import AUTHORIZATION_KEY
from .._credentials import tls_problem
from .._errors import REQUEST_ID_KEY, SamplingError, closed_error, from_rpc_error
from .._processes import AFTER_FORK, is_forked
from .._retry import Retries
from .shards import Cursor

Channel = TypeVar("Channel", bound=grpc.Channel | grpc.aio.Channel)
END_SECONDS = 2.0
"""How long a server may take to end a stream whose last image arrived."""


@dataclass(kw_only=True)
class Connection(Generic[Channel]):
    """A server, the channel to it, and the token that its calls carry."""

    target: str
    channel: Channel
    stub: Any
    token: str | None = field(repr=False)
    own_metadata: tuple[tuple[str, str | bytes], ...] = field(default=(), repr=False)
    """The caller's own, of every call."""
    is_secure: bool = False
    """Whether it has TLS."""
    proxy: str | None = None
    """What lies between, in words."""
    was_reached: bool = field(default=False, init=False)
    """Whether a call succeeded, so that TLS is no trouble."""

    calls: set[Any] = field(default_factory=set, init=False, repr=False)
    """Those that run. With gRPC 1.73 those of asyncio go on when their channel is closed."""

    @contextmanager
    def noted(self, call: Any) -> Iterator[Any]:
        """Have a call among those that run, meanwhile."""
        self.calls.add(call)
        try:
            yield call
        finally:
            self.calls.discard(call)

    def metadata(self, request_id: str | None) -> tuple[tuple[str, str | bytes], ...]:
        """What a call sends beside its request."""
        # The token is not gRPC's own call credentials: those need TLS, which some leave to a proxy.
        token = () if self.token is None else ((AUTHORIZATION_KEY, f"Bearer {self.token}"),)
        named = () if request_id is None else ((REQUEST_ID_KEY, request_id),)
        return (*named, *token, *self.own_metadata)

    def hints(self, text: str) -> Iterator[str]:
        """What may have kept a call from the server, of which gRPC says `text`."""
        if self.proxy is not None:
            yield f"calls go through the proxy {self.proxy}; no_proxy names hosts to reach without one"
        elif problem := self._problem(text):
            yield problem
        if is_forked():
            yield AFTER_FORK

    def _problem(self, text: str) -> str | None:
        host, port = host_port(self.target)
        if self.was_reached or not port.isdigit():  # a path, or several addresses
            return None
        try:
            return tls_problem(host, int(port), text, is_secure=self.is_secure)
        except ConnectionRefusedError:
            return "nothing listens there; start a server with `bgan serve`, or name another address with --server"
        except OSError:
            return None


@contextmanager
def typed_errors(
    connection: Connection[Any], request_id: str | None, cursor: Cursor | None = None
) -> Iterator[None]:
    """Raises a SamplingError for a gRPC error; that of a stream says where to resume."""
    first_index = None if cursor is None else cursor.next_index
    try:
        yield
        connection.was_reached = True
    except grpc.RpcError as error:
        next_index = None if cursor is None else cursor.next_index
        connection.was_reached |= next_index != first_index
        failure = from_rpc_error(error, target=connection.target, next_index=next_index, request_id=request_id)
        raise _explained(failure, connection) from error
    except (grpc.aio.UsageError, ValueError) as error:
        if isinstance(error, ValueError) and "closed channel" not in str(error):
            raise
        raise closed_error(first_index) from error


@contextmanager
def errors_at(next_index: int) -> Iterator[None]:
    """Lets a SamplingError of a call that a stream needs first say where the stream is."""
    try:
        yield
    except SamplingError as error:
        error.next_index = next_index
        raise


def _explained(failure: SamplingError, connection: Connection[Any]) -> SamplingError:
    """The failure; where no server was reached, with what may be the cause. A reason is a server's answer."""
    if failure.reason is None and (failure.code == grpc.StatusCode.UNAVAILABLE or is_forked()):
        failure.args = ("; ".join([str(failure), *connection.hints(str(failure))]),)
    return failure


@contextmanager
def open_call(connection: Connection[Any], cursor: Cursor, retries: Retries) -> Iterator[Any]:
    """A call for the rest of a stream, cancelled at the end. Raises a SamplingError for a gRPC error."""
    timeout, metadata = retries.seconds_left(cursor.next_index), connection.metadata(cursor.request_id)
    with typed_errors(connection, cursor.request_id, cursor):
        call = connection.stub.SampleBinaryImages(cursor.rest(), timeout=timeout, metadata=metadata)
        try:
            with connection.noted(call):
                yield call
        finally:
            cancel(call)


def cancel(call: Any) -> None:
    """End a call; that of an interceptor may be a bare generator, as OpenTelemetry's is."""
    if (end := getattr(call, "cancel", None)) is not None:
        end()
        return
    with suppress(ValueError):  # it runs in another thread, which looks itself whether it may stop
        call.close()


def wait_for_end(call: Any) -> None:
    """Let a stream whose last image arrived end by itself, as the server's log has it, but not for ever."""
    if (ended := getattr(call, "exception", None)) is not None:  # no generator of an interceptor
        with suppress(grpc.RpcError, grpc.FutureTimeoutError, grpc.FutureCancelledError):
            ended(timeout=END_SECONDS)
