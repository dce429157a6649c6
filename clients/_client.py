"""The blocking client."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import grpc

from bgan.v1 import sampling_pb2, sampling_pb2_grpc

from ._base import DEFAULT_TIMEOUT_SECONDS, UNSET, BaseClient, Timeout
from ._credentials import with_token
from ._errors import SamplingError, ServerUnavailableError, from_rpc_error
from ._messages import build_request, check_request_id, decode_failure, decode_limits, decode_model
from ._retry import Deadline, Retries, RetryPolicy
from ._stream.call import closed_error, open_call, request_metadata
from ._stream.cursor import Cursor, Origin
from ._stream.shards import Pieces, is_splittable
from ._stream.threads import Crew, Lifetime, Server
from ._types import ImageBatch, Limits, ModelFailure, ModelInfo


class SamplingClient(BaseClient):
    """Samples binary images from one or several servers. Use as a context manager, or call `close`.

    >>> with SamplingClient("localhost:50051") as client:
    ...     for batch in client.sample_binary_images(image_count=1000, seed=1):
    ...         batch.images  # uint8 [n, channels, height, width]
    """

    def __init__(
        self,
        target: str | Sequence[str],
        *,
        timeout_seconds: float | None = DEFAULT_TIMEOUT_SECONDS,
        retry: RetryPolicy | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        server_name: str | None = None,
        token: str | None = None,
    ) -> None:
        super().__init__(
            target,
            timeout_seconds=timeout_seconds,
            retry=retry,
            credentials=credentials,
            server_name=server_name,
            token=token,
        )
        self._lifetime = Lifetime()
        self._servers = [self._connect(target) for target in self.targets]

    __init__.__doc__ = BaseClient.__init__.__doc__

    def sample_binary_images(
        self,
        *,
        image_count: int,
        seed: int | None = None,
        model: str = "",
        version: int | None = None,
        first_index: int = 0,
        batch_size: int | None = None,
        include_probabilities: bool = False,
        revision: str | None = None,
        labels: Sequence[int] = (),
        request_id: str | None = None,
        timeout_seconds: Timeout = UNSET,
    ) -> Generator[ImageBatch, None, None]:
        """Yield images first_index .. first_index + image_count - 1 of a seed, in order, in batches.

        Image i of a (revision, seed) is always the same, however a range is split into calls and
        batches. The model's highest version makes them unless one is named. Without a seed one is drawn;
        each batch says it. Of a model of classes image i is of the class labels[i % len(labels)], or without
        labels of one that is drawn with it; each batch says them.

        When a server is away, restarts or breaks the connection, the stream goes on at its next image, as
        the retry policy says, and logs a warning; every image comes exactly once. All images are of one
        revision: `revision`, or else that of the first batch. It is asked for when the stream goes on; a
        server that does not have it any more raises RevisionChangedError.
        Several servers make pieces of the stream at the same time, and one that stays away leaves its
        images to the others.

        `request_id`, up to 128 letters, digits and ._:/@+=-, names all tries in the servers' logs and traces.

        The call begins when the first batch is asked for, and its timeout covers all tries and waits.
        Closing the iterator cancels it. Raises a SamplingError, whose `next_index` says where to go on.
        """
        request = build_request(
            image_count=image_count,
            seed=seed,
            model=model,
            version=version,
            first_index=first_index,
            batch_size=batch_size,
            include_probabilities=include_probabilities,
            labels=labels,
        )
        check_request_id(request_id)
        timeout = self._timeout(timeout_seconds, image_count)
        if len(self._servers) > 1 and is_splittable(request):
            return self._split_stream(request, revision, request_id, timeout)
        return self._stream(request, revision, request_id, timeout)

    def list_models(self, *, request_id: str | None = None, timeout_seconds: Timeout = UNSET) -> list[ModelInfo]:
        """The models that the server has, by name, the highest version first. Raises a SamplingError."""
        response = self._ask("ListModels", sampling_pb2.ListModelsRequest(), request_id, timeout_seconds)
        return [decode_model(model) for model in response.models]

    def list_model_failures(
        self, *, request_id: str | None = None, timeout_seconds: Timeout = UNSET
    ) -> list[ModelFailure]:
        """The model files that the server cannot serve. Raises a SamplingError."""
        response = self._ask("ListModels", sampling_pb2.ListModelsRequest(), request_id, timeout_seconds)
        return [decode_failure(failure) for failure in response.failures]

    def get_limits(self, *, request_id: str | None = None, timeout_seconds: Timeout = UNSET) -> Limits:
        """The limits that the server holds requests to. Raises a SamplingError."""
        return decode_limits(
            self._ask("ListModels", sampling_pb2.ListModelsRequest(), request_id, timeout_seconds).limits
        )

    def get_model(
        self,
        name: str = "",
        *,
        version: int | None = None,
        request_id: str | None = None,
        timeout_seconds: Timeout = UNSET,
    ) -> ModelInfo:
        """One model, by default the server's default one, in its highest version. Raises a SamplingError."""
        request = sampling_pb2.GetModelRequest(name=name, version=version or 0)
        return decode_model(self._ask("GetModel", request, request_id, timeout_seconds).model)

    def close(self) -> None:
        """Close the connections; calls that still run are cancelled, and streams end with a SamplingError."""
        self._lifetime.close()
        for server in self._servers:
            server.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self, target: str) -> Server:
        if self._credentials is None:
            channel = grpc.insecure_channel(target, options=self._options)
        else:
            channel = grpc.secure_channel(target, self._credentials, options=self._options)
        stub = with_token(sampling_pb2_grpc.SamplingServiceStub(channel), self._token)
        return Server(target=target, channel=channel, stub=stub)

    def _ask(self, method: str, request: Any, request_id: str | None, timeout_seconds: Timeout) -> Any:
        """The answer of the first server that is there."""
        check_request_id(request_id)
        *others, last = self._servers
        for server in others:
            with suppress(ServerUnavailableError):
                return self._ask_server(server, method, request, request_id, timeout_seconds)
        return self._ask_server(last, method, request, request_id, timeout_seconds)

    def _ask_server(
        self, server: Server, method: str, request: Any, request_id: str | None, timeout_seconds: Timeout
    ) -> Any:
        try:
            return getattr(server.stub, method)(
                request, timeout=self._timeout(timeout_seconds), metadata=request_metadata(request_id)
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error, target=server.target, request_id=request_id) from error

    def _stream(
        self,
        request: sampling_pb2.SampleBinaryImagesRequest,
        revision: str | None,
        request_id: str | None,
        timeout: float | None,
    ) -> Generator[ImageBatch, None, None]:
        server, deadline = self._servers[0], Deadline(timeout)
        cursor = Cursor(request, Origin(revision=revision), request_id)
        retries = Retries(server.target, self._retry, deadline)
        while not self._lifetime.is_closed:
            try:
                with open_call(server.stub, server.target, cursor, deadline) as call:
                    for response in call:
                        batch = cursor.accept(response, server.target)
                        retries.reset()
                        yield batch
                cursor.check_complete(server.target)
            except SamplingError as failure:
                if not cursor.is_complete and not self._lifetime.is_closed:
                    self._lifetime.wait(retries.wait_after(failure))
            if cursor.is_complete:
                return
        raise closed_error(cursor.next_index)

    def _split_stream(
        self,
        request: sampling_pb2.SampleBinaryImagesRequest,
        revision: str | None,
        request_id: str | None,
        timeout: float | None,
    ) -> Generator[ImageBatch, None, None]:
        pieces = Pieces(request, server_count=len(self._servers), revision=revision, request_id=request_id)
        crew = Crew(self._servers, pieces, retry=self._retry, deadline=Deadline(timeout), lifetime=self._lifetime)
        yield from crew.batches()
