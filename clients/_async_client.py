"""The asyncio client; mirrors the blocking one."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, Self

import grpc

from ._base import UNSET, BaseClient, Timeout, model_request
from ._errors import SamplingError, closed_error
from ._messages import ModelPages, SampleRequest, check_request_id, decode_answer
from ._processes import note_use
from ._retry import Retries, is_transient
from ._stream.call import Connection, errors_at, open_call, typed_errors
from ._stream.shards import Cursor
from ._stream.tasks import Lifetime, ShardWorkers, typed_cancellation, wait_for_end
from ._types import ImageBatch, ModelInfo, ModelList

_All = Coroutine[Any, Any, ImageBatch]


class AsyncSamplingClient(BaseClient[grpc.aio.Channel, Lifetime, AsyncGenerator[ImageBatch, None], _All]):
    """Samples binary images from one or several servers. Use as an async context manager, or await `close`.

    >>> async with AsyncSamplingClient("localhost:50051") as client:
    ...     (await client.sample(64, seed=1)).images  # uint8 [64, channels, height, width] of 0 and 1
    ...     async for batch in client.sample_binary_images(image_count=1000, seed=1):
    ...         batch.images  # uint8 [n, channels, height, width]
    """

    _grpc = grpc.aio
    _new_lifetime = Lifetime
    _workers = ShardWorkers
    _loop: asyncio.AbstractEventLoop | None = None

    async def list_models(self, *, request_id: str | None = None, timeout_seconds: Timeout = UNSET) -> ModelList:
        """The models of the server, the files that it cannot serve and its limits. Raises a SamplingError."""
        pages, retries, models = ModelPages(), self._retries(timeout_seconds), None
        while models is None:
            models = pages.add(*await self._unary("ListModels", pages.next_request, request_id, retries))
        return models

    async def get_model(
        self,
        name: str | None = None,
        *,
        version: int | None = None,
        request_id: str | None = None,
        timeout_seconds: Timeout = UNSET,
    ) -> ModelInfo:
        """One model, by default the server's default one, in its highest version. Raises a SamplingError."""
        request = model_request(name, version)
        response, target = await self._unary("GetModel", request, request_id, self._retries(timeout_seconds))
        return decode_answer(response, request, target)

    async def close(self) -> None:
        """Close the connections; running calls are cancelled, and streams end with a SamplingError."""
        if self._connections:
            self._check_loop()
        await self._lifetime.close()
        for connection in self._connections:
            await connection.channel.close()

    async def aclose(self) -> None:
        """`close`, by the name that `contextlib.aclosing` and `AsyncExitStack` know."""
        await self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    def _connected(self, next_index: int | None = None) -> list[Connection[grpc.aio.Channel]]:
        self._check_loop()
        return super()._connected(next_index)

    def _check_loop(self) -> None:
        """Take up with the running event loop. Raises RuntimeError if the client's calls run in another.

        A client may be made before any loop runs, and used by one `asyncio.run` after the other.
        """
        note_use(by_asyncio=True)  # first: to drop another process's connections would hang
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop and not self._loop.is_closed():
            raise RuntimeError("this AsyncSamplingClient is used by another event loop; make one for each loop")
        if self._loop is not loop:
            self._connections, self._lifetime.changed = [], asyncio.Condition()
        self._loop = loop

    async def _unary(self, method: str, request: Any, request_id: str | None, retries: Retries) -> tuple[Any, str]:
        """The answer of the first server that is there, and which that is."""
        check_request_id(request_id)
        connections = self._connected()
        while not self._lifetime.is_closed:
            for connection in connections:
                timeout = retries.seconds_left()
                call, metadata = getattr(connection.stub, method), connection.metadata(request_id)
                try:
                    with typed_errors(connection, request_id), typed_cancellation(self._lifetime):
                        answer = await call(request, timeout=timeout, metadata=metadata)
                        return answer, connection.target
                except SamplingError as error:
                    failure = error
                    if not is_transient(error):
                        break
            await self._lifetime.wait(retries.wait_after(failure))
        raise closed_error()

    async def _collect(self, batches: AsyncGenerator[ImageBatch, None]) -> ImageBatch:
        async with aclosing(batches):
            return ImageBatch.concatenate([batch async for batch in batches])

    async def _named(self, request: SampleRequest, timeout: float | None) -> AsyncGenerator[ImageBatch, None]:
        lookup, retries = model_request(request.model, request.version, request.revision), self._retries(timeout)
        with errors_at(request.first_index):
            response, target = await self._unary("GetModel", lookup, request.request_id, retries)
            numbered = request.numbered(decode_answer(response, lookup, target))
        left = retries.seconds_left(request.first_index)
        async with aclosing(self._batches(numbered, left)) as batches:
            async for batch in batches:
                yield batch

    async def _stream(self, request: SampleRequest, timeout: float | None) -> AsyncGenerator[ImageBatch, None]:
        connection, cursor = self._connected(request.first_index)[0], Cursor(request)
        retries = Retries(connection.target, self._retry, timeout)
        while not self._lifetime.is_closed:
            try:
                with typed_cancellation(self._lifetime, cursor), open_call(connection, cursor, retries) as call:
                    async for response in call:
                        batch = cursor.accept(response, connection.target)
                        retries.reset()
                        yield batch
                        if cursor.is_complete:
                            await wait_for_end(call)
                            return
                cursor.check_complete(connection.target)
            except SamplingError as failure:
                if not cursor.is_complete and not self._lifetime.is_closed:
                    await self._lifetime.wait(retries.wait_after(failure))
            if cursor.is_complete:
                return
        raise closed_error(cursor.next_index)
