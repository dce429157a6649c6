"""The asyncio client; mirrors the blocking one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import grpc

from bgan.v1 import sampling_pb2, sampling_pb2_grpc

from ._base import (
    DEFAULT_TIMEOUT_SECONDS,
    UNSET,
    BaseClient,
    RetryPolicy,
    Timeout,
    build_request,
    decode_batch,
    decode_limits,
    decode_model,
)
from ._errors import from_rpc_error
from ._types import ImageBatch, Limits, ModelInfo


class AsyncSamplingClient(BaseClient):
    """Samples binary images from a server. Use as an async context manager, or await `close`.

    >>> async with AsyncSamplingClient("localhost:50051") as client:
    ...     async for batch in client.sample_binary_images(image_count=1000, seed=1):
    ...         batch.images  # uint8 [n, channels, height, width]
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_seconds: float | None = DEFAULT_TIMEOUT_SECONDS,
        retry: RetryPolicy | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        super().__init__(target, timeout_seconds=timeout_seconds, retry=retry, credentials=credentials)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options=self._options)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=self._options)
        self._stub: sampling_pb2_grpc.SamplingServiceAsyncStub = sampling_pb2_grpc.SamplingServiceStub(
            self._channel
        )

    __init__.__doc__ = BaseClient.__init__.__doc__

    def sample_binary_images(
        self,
        *,
        image_count: int,
        seed: int | None = None,
        model: str = "",
        first_index: int = 0,
        batch_size: int | None = None,
        include_probabilities: bool = False,
        timeout_seconds: Timeout = UNSET,
    ) -> AsyncIterator[ImageBatch]:
        """Yield images first_index .. first_index + image_count - 1 of a seed, in order, in batches.

        As `SamplingClient.sample_binary_images`.
        """
        request = build_request(
            image_count=image_count,
            seed=seed,
            model=model,
            first_index=first_index,
            batch_size=batch_size,
            include_probabilities=include_probabilities,
        )
        call = self._stub.SampleBinaryImages(request, timeout=self._timeout(timeout_seconds, image_count))
        return self._batches(call, first_index)

    async def list_models(self, *, timeout_seconds: Timeout = UNSET) -> list[ModelInfo]:
        """The models that the server has, by name. Raises a SamplingError."""
        response = await self._list_models(timeout_seconds)
        return [decode_model(model) for model in response.models]

    async def get_limits(self, *, timeout_seconds: Timeout = UNSET) -> Limits:
        """The limits that the server holds requests to. Raises a SamplingError."""
        return decode_limits((await self._list_models(timeout_seconds)).limits)

    async def get_model(self, name: str = "", *, timeout_seconds: Timeout = UNSET) -> ModelInfo:
        """One model, by default the server's default one. Raises a SamplingError."""
        try:
            request = sampling_pb2.GetModelRequest(name=name)
            response = await self._stub.GetModel(request, timeout=self._timeout(timeout_seconds))
        except grpc.RpcError as error:
            raise from_rpc_error(error, target=self.target) from error
        return decode_model(response.model)

    async def close(self) -> None:
        """Close the connection; calls that still run are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _list_models(self, timeout_seconds: Timeout) -> sampling_pb2.ListModelsResponse:
        try:
            return await self._stub.ListModels(
                sampling_pb2.ListModelsRequest(), timeout=self._timeout(timeout_seconds)
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error, target=self.target) from error

    async def _batches(
        self,
        call: grpc.aio.UnaryStreamCall[
            sampling_pb2.SampleBinaryImagesRequest, sampling_pb2.SampleBinaryImagesResponse
        ],
        next_index: int,
    ) -> AsyncIterator[ImageBatch]:
        try:
            async for response in call:
                batch = decode_batch(response, expected_index=next_index)
                next_index = batch.next_index
                yield batch
        except grpc.RpcError as error:
            raise from_rpc_error(error, target=self.target, next_index=next_index) from error
        finally:
            call.cancel()
