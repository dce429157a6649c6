"""How a call for images is opened and ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from .._errors import REQUEST_ID_KEY, SamplingError, from_rpc_error
from .._retry import Deadline
from .cursor import Cursor


def request_metadata(request_id: str | None) -> tuple[tuple[str, str], ...]:
    """What a call sends beside its request."""
    return () if request_id is None else ((REQUEST_ID_KEY, request_id),)


@contextmanager
def open_call(stub: Any, target: str, cursor: Cursor, deadline: Deadline) -> Iterator[Any]:
    """A call for what is left of a stream, cancelled at the end. Raises a SamplingError for a gRPC error."""
    call = stub.SampleBinaryImages(
        cursor.rest(), timeout=deadline.seconds_left(), metadata=request_metadata(cursor.request_id)
    )
    try:
        yield call
    except grpc.RpcError as error:
        raise from_rpc_error(
            error, target=target, next_index=cursor.next_index, request_id=cursor.request_id
        ) from error
    finally:
        call.cancel()


def closed_error(next_index: int) -> SamplingError:
    """What a stream ends with when its client is closed."""
    return SamplingError(
        f"the client was closed; image {next_index} was next",
        code=grpc.StatusCode.CANCELLED,
        next_index=next_index,
    )
