"""The asyncio client; mirrors the blocking one."""

from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, Self

import grpc

from bgan.v1 import sampling_pb2

from ._base import UNSET, BaseClient, Timeout
from ._errors import SamplingError, ServerUnavailableError, closed_error
from ._messages import SampleRequest, check_request_id, decode_model, decode_models
from ._retry import Retries
from ._stream.call import Connection, open_call, typed_errors
from ._stream.shards import Cursor
from ._stream.tasks import Lifetime, ShardWorkers, typed_cancellation
from ._types import ImageBatch, ModelInfo, ModelList


class AsyncSamplingClient(BaseClient[grpc.aio.Channel, Lifetime, AsyncGenerator[ImageBatch, None]]):
    """Samples binary images from one or several servers. Use as an async context manager, or await `close`.

    >>> async with AsyncSamplingClient("localhost:50051") as client:
    ...     async for batch in client.sample_binary_images(image_count=1000, seed=1):
    ...         batch.images  # uint8 [n, channels, height, width]
    """

    _grpc = grpc.aio
    _new_lifetime = Lifetime
    _workers = ShardWorkers

    async def list_models(self, *, request_id: str | None = None, timeout_seconds: Timeout = UNSET) -> ModelList:
        """The models of the server, the files that it cannot serve and its limits. Raises a SamplingError."""
        request = sampling_pb2.ListModelsRequest()
        return decode_models(await self._unary("ListModels", request, request_id, timeout_seconds))

    async def get_model(
        self,
        name: str = "",
        *,
        version: int | None = None,
        request_id: str | None = None,
        timeout_seconds: Timeout = UNSET,
    ) -> ModelInfo:
        """One model, by default the server's default one, in its highest version. Raises a SamplingError."""
        request = sampling_pb2.GetModelRequest(name=name, version=version or 0)
        return decode_model((await self._unary("GetModel", request, request_id, timeout_seconds)).model)

    async def close(self) -> None:
        """Close the connections; running calls are cancelled, and streams end with a SamplingError."""
        await self._lifetime.close()
        for connection in self._connections:
            await connection.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _unary(self, method: str, request: Any, request_id: str | None, timeout_seconds: Timeout) -> Any:
        """The answer of the first server that is there."""
        check_request_id(request_id)

        async def ask(connection: Connection[grpc.aio.Channel]) -> Any:
            options = {"timeout": self._timeout(timeout_seconds), "metadata": connection.metadata(request_id)}
            with typed_errors(connection.target, request_id):
                return await getattr(connection.stub, method)(request, **options)

        *others, last = self._connections
        for connection in others:
            with suppress(ServerUnavailableError):
                return await ask(connection)
        return await ask(last)

    async def _stream(self, request: SampleRequest, timeout: float | None) -> AsyncGenerator[ImageBatch, None]:
        connection, cursor = self._connections[0], Cursor(request)
        retries = Retries(connection.target, self._retry, timeout)
        while not self._lifetime.is_closed:
            try:
                with typed_cancellation(self._lifetime, cursor), open_call(connection, cursor, retries) as call:
                    async for response in call:
                        batch = cursor.accept(response, connection.target)
                        retries.reset()
                        yield batch
                cursor.check_complete(connection.target)
            except SamplingError as failure:
                if not cursor.is_complete and not self._lifetime.is_closed:
                    await self._lifetime.wait_for(lambda: self._lifetime.is_closed, retries.wait_after(failure))
            if cursor.is_complete:
                return
        raise closed_error(cursor.next_index)
