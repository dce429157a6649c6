"""The blocking client."""

from collections.abc import Generator
from typing import Any, Self

import grpc

from ._base import UNSET, BaseClient, Timeout, model_request
from ._errors import SamplingError, closed_error
from ._messages import ModelPages, SampleRequest, check_request_id, decode_answer
from ._retry import Retries, is_transient
from ._stream.call import Connection, errors_at, open_call, typed_errors, wait_for_end
from ._stream.shards import Cursor
from ._stream.threads import Lifetime, ShardWorkers
from ._types import ImageBatch, ModelInfo, ModelList


class SamplingClient(BaseClient[grpc.Channel, Lifetime, Generator[ImageBatch, None, None], ImageBatch]):
    """Samples binary images from one or several servers. Use as a context manager, or call `close`.

    >>> with SamplingClient("localhost:50051") as client:
    ...     client.sample(64, seed=1).images  # uint8 [64, channels, height, width] of 0 and 1
    ...     for batch in client.sample_binary_images(image_count=1000, seed=1):
    ...         batch.images  # uint8 [n, channels, height, width]
    """

    _grpc = grpc
    _new_lifetime = Lifetime
    _workers = ShardWorkers

    def list_models(self, *, request_id: str | None = None, timeout_seconds: Timeout = UNSET) -> ModelList:
        """The models of the server, the files that it cannot serve and its limits. Raises a SamplingError."""
        pages, retries, models = ModelPages(), self._retries(timeout_seconds), None
        while models is None:
            models = pages.add(*self._unary("ListModels", pages.next_request, request_id, retries))
        return models

    def get_model(
        self,
        name: str | None = None,
        *,
        version: int | None = None,
        request_id: str | None = None,
        timeout_seconds: Timeout = UNSET,
    ) -> ModelInfo:
        """One model, by default the server's default one, in its highest version. Raises a SamplingError."""
        request = model_request(name, version)
        response, target = self._unary("GetModel", request, request_id, self._retries(timeout_seconds))
        return decode_answer(response, request, target)

    def close(self) -> None:
        """Close the connections; running calls are cancelled, and streams end with a SamplingError."""
        self._lifetime.close()
        for connection in self._connections:
            connection.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _connected(self, next_index: int | None = None) -> list[Connection[grpc.Channel]]:
        with self._lifetime.changed:  # several threads may begin at once
            return super()._connected(next_index)

    def _unary(self, method: str, request: Any, request_id: str | None, retries: Retries) -> tuple[Any, str]:
        """The answer of the first server that is there, and which that is."""
        check_request_id(request_id)
        connections = self._connected()
        while not self._lifetime.is_closed:
            for connection in connections:
                timeout = retries.seconds_left()
                call, metadata = getattr(connection.stub, method), connection.metadata(request_id)
                try:
                    with typed_errors(connection, request_id):
                        return call(request, timeout=timeout, metadata=metadata), connection.target
                except SamplingError as error:
                    failure = error
                    if not is_transient(error):
                        break
            self._lifetime.wait(retries.wait_after(failure))
        raise closed_error()

    def _collect(self, batches: Generator[ImageBatch, None, None]) -> ImageBatch:
        return ImageBatch.concatenate(list(batches))

    def _named(self, request: SampleRequest, timeout: float | None) -> Generator[ImageBatch, None, None]:
        lookup, retries = model_request(request.model, request.version, request.revision), self._retries(timeout)
        with errors_at(request.first_index):
            response, target = self._unary("GetModel", lookup, request.request_id, retries)
            numbered = request.numbered(decode_answer(response, lookup, target))
        yield from self._batches(numbered, retries.seconds_left(request.first_index))

    def _stream(self, request: SampleRequest, timeout: float | None) -> Generator[ImageBatch, None, None]:
        connection, cursor = self._connected(request.first_index)[0], Cursor(request)
        retries = Retries(connection.target, self._retry, timeout)
        while not self._lifetime.is_closed:
            try:
                with open_call(connection, cursor, retries) as call:
                    for response in call:
                        batch = cursor.accept(response, connection.target)
                        retries.reset()
                        yield batch
                        if cursor.is_complete:
                            wait_for_end(call)
                            return
                cursor.check_complete(connection.target)
            except SamplingError as failure:
                if not cursor.is_complete and not self._lifetime.is_closed:
                    self._lifetime.wait(retries.wait_after(failure))
            if cursor.is_complete:
                return
        raise closed_error(cursor.next_index)
