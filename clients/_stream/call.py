"""A connection to a server, and how a call on it is opened and ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import grpc

from .._errors import REQUEST_ID_KEY, from_rpc_error
from .._retry import Retries
from .shards import Cursor

Channel = TypeVar("Channel", bound=grpc.Channel | grpc.aio.Channel)


@dataclass(frozen=True, kw_only=True)
class Connection(Generic[Channel]):
    """A server, the channel to it, and the token that its calls carry."""

    target: str
    channel: Channel
    stub: Any
    token: str | None = field(repr=False)

    def metadata(self, request_id: str | None) -> tuple[tuple[str, str], ...]:
        """What a call sends beside its request."""
        # The token is not gRPC's own call credentials: those need TLS, which some leave to a proxy.
        token = () if self.token is None else (("authorization", f"Bearer {self.token}"),)
        return token if request_id is None else ((REQUEST_ID_KEY, request_id), *token)


@contextmanager
def typed_errors(target: str, request_id: str | None, cursor: Cursor | None = None) -> Iterator[None]:
    """Raises a SamplingError for a gRPC error; that of a stream says where to resume."""
    try:
        yield
    except grpc.RpcError as error:
        next_index = None if cursor is None else cursor.next_index
        raise from_rpc_error(error, target=target, next_index=next_index, request_id=request_id) from error


@contextmanager
def open_call(connection: Connection[Any], cursor: Cursor, retries: Retries) -> Iterator[Any]:
    """A call for the rest of a stream, cancelled at the end. Raises a SamplingError for a gRPC error."""
    call = connection.stub.SampleBinaryImages(
        cursor.rest(), timeout=retries.seconds_left(), metadata=connection.metadata(cursor.request_id)
    )
    try:
        with typed_errors(connection.target, cursor.request_id, cursor):
            yield call
    finally:
        call.cancel()
