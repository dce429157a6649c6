"""What the blocking and the asyncio client share: settings, requests and connections."""

import enum
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, Final, Generic, NoReturn, TypeVar

import grpc

from bgan.v1 import sampling_pb2, sampling_pb2_grpc

from ._addresses import check_target, is_local, proxy_of
from ._channels import (
    AUTHORIZATION_KEY,
    Metadata,
    check_interceptors,
    check_metadata,
    check_options,
    open_channel,
)
from ._credentials import check_token
from ._errors import InvalidRequestError, closed_error
from ._messages import LenientChannel, SampleRequest, check_integer, check_text, checked_request
from ._processes import note_use
from ._retry import Retries, RetryPolicy
from ._stream import tasks, threads
from ._stream.call import Channel, Connection
from ._stream.shards import Shards, is_splittable
from ._text import printable
from ._types import Labels

DEFAULT_TIMEOUT_SECONDS = 10.0
STREAM_SECONDS_PER_IMAGE = 0.01
_MAX_RECEIVED_BYTES = 64 * 1024 * 1024
# A server that hangs or vanishes is noticed after both times; bgan's servers accept a ping every 10 s.
KEEPALIVE_SECONDS = 30.0
KEEPALIVE_TIMEOUT_SECONDS = 20.0
_NO_LIMIT_SECONDS = 1e9  # some 30 years: more cannot be told from no limit, and overflows in some clocks
# Distinguishes a timeout that was not given from None, which means no limit.
_Unset = enum.Enum("_Unset", "UNSET")
UNSET: Final = _Unset.UNSET
Timeout = float | None | _Unset
Lifetime = TypeVar("Lifetime", threads.Lifetime, tasks.Lifetime)
Batches = TypeVar("Batches")
Batch = TypeVar("Batch")


class BaseClient(ABC, Generic[Channel, Lifetime, Batches, Batch]):
    """A client without its I/O.

    `Batches` is what it returns a stream as, `Batch` all of its images, and `Lifetime` ends its streams.
    """

    _grpc: Any  # grpc or grpc.aio
    _new_lifetime: type[Lifetime]
    _workers: Any  # the ShardWorkers of threads or of tasks

    def __init__(
        self,
        target: str | Sequence[str],
        *,
        timeout_seconds: float | None = DEFAULT_TIMEOUT_SECONDS,
        retry: RetryPolicy | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        server_name: str | None = None,
        token: str | None = None,
        plaintext_token: bool = False,
        metadata: Metadata = (),
        interceptors: Sequence[Any] = (),
        channel_options: Mapping[str, Any] | Sequence[tuple[str, Any]] = (),
    ) -> None:
        """Make a client; it connects with its first call.

        target: the server's address, host:port such as "localhost:50051", "[::1]:50051" or "unix:/run/bgan.sock",
            or those of several servers with the same models. Streams are then split over all of them; other calls
            go to the first that is there. An address that is given several times gets as many connections.
        timeout_seconds: how long a call may take, retries and waits included; a stream gets 10 ms more for
            each image. None or infinity: no limit.
        retry: how to continue when a server is away or restarts; None: RetryPolicy(), until the timeout.
        credentials: for TLS, such as `tls_credentials()`; None: plaintext.
        server_name: the name that the server's certificate must have, if it is not that of the target.
        token: sent with every call, for servers that require one.
        plaintext_token: send the token to other machines without TLS too, where all on the way can read it.
        metadata: sent with every call, such as {"x-team": "digits"}; values are text, or bytes of keys in -bin.
        interceptors: gRPC's, of grpc for a SamplingClient and of grpc.aio for an AsyncSamplingClient; the first
            sees a call first. They see each try of a call.
        channel_options: gRPC's by name, in place of the client's own where it sets the same.

        Raises ValueError for an argument that cannot be meant.
        """
        is_one = isinstance(target, str | bytes) or not isinstance(target, Iterable)
        self.targets: tuple[Any, ...] = (target,) if is_one else tuple(target)
        """The servers' addresses."""
        if not self.targets:
            raise ValueError("no server was named; give at least one address")
        for each in self.targets:
            check_target(each)
        self._token = None if token is None else check_token(token)
        self._metadata = check_metadata(metadata, with_token=token is not None)
        is_secret = token is not None or AUTHORIZATION_KEY in dict(self._metadata)
        if is_secret and credentials is None and not plaintext_token:
            _refuse_plaintext(self.targets)
        if not _is_timeout(timeout_seconds) or (timeout_seconds is not None and timeout_seconds <= 0):
            raise ValueError(f"timeout_seconds is {timeout_seconds!r}; use seconds above 0, or None for no limit")
        if not (credentials is None or isinstance(credentials, grpc.ChannelCredentials)):
            raise ValueError("credentials are what tls_credentials() returns, or grpc.ChannelCredentials")
        if not (retry is None or isinstance(retry, RetryPolicy)):
            raise ValueError(f"retry is {printable(repr(retry))}; use a RetryPolicy")
        if server_name is not None and credentials is None:
            raise ValueError("server_name is of TLS; give credentials too, such as tls_credentials()")
        self._timeout_seconds = timeout_seconds
        self._retry = retry or RetryPolicy()
        self._credentials = credentials
        self._interceptors = check_interceptors(interceptors, self._grpc)
        named = {} if server_name is None else {"grpc.ssl_target_name_override": server_name}
        self._own_options = named | check_options(channel_options)
        self._lifetime: Lifetime = self._new_lifetime()
        self._connections: list[Connection[Channel]] = []
        self._inherited: list[Connection[Channel]] = []
        self._pid: int | None = None  # of the process that made the connections

    def __repr__(self) -> str:
        closed = ", closed" if self._lifetime.is_closed else ""
        return f"{type(self).__name__}({', '.join(map(repr, self.targets))}{closed})"

    def __reduce__(self) -> NoReturn:
        name = type(self).__name__
        raise TypeError(f"a {name} holds connections and cannot be pickled or copied; make one in each process")

    def sample(
        self,
        image_count: int,
        *,
        seed: int | None = None,
        model: str | None = None,
        version: int | None = None,
        first_index: int = 0,
        batch_size: int | None = None,
        include_probabilities: bool = False,
        revision: str | None = None,
        labels: Labels = (),
        request_id: str | None = None,
        timeout_seconds: Timeout = UNSET,
    ) -> Batch:
        """Return all images of a call of `sample_binary_images` as one ImageBatch; the arguments are the same.

        All of them are in memory, an eighth of a byte a pixel. Raises a SamplingError, also if only part arrived.
        """
        batches = self.sample_binary_images(
            image_count=image_count,
            seed=seed,
            model=model,
            version=version,
            first_index=first_index,
            batch_size=batch_size,
            include_probabilities=include_probabilities,
            revision=revision,
            labels=labels,
            request_id=request_id,
            timeout_seconds=timeout_seconds,
        )
        return self._collect(batches)

    def sample_binary_images(
        self,
        *,
        image_count: int,
        seed: int | None = None,
        model: str | None = None,
        version: int | None = None,
        first_index: int = 0,
        batch_size: int | None = None,
        include_probabilities: bool = False,
        revision: str | None = None,
        labels: Labels = (),
        request_id: str | None = None,
        timeout_seconds: Timeout = UNSET,
    ) -> Batches:
        """Yield images first_index .. first_index + image_count - 1 of a seed, in order, in batches.

        Image i of a (revision, seed) is always the same, however a range is split into calls and batches.

        seed: 0 to 2^63 - 1; None: one is drawn. Each batch says it.
        model, version: None is the server's default model, which is its only one where it has one, and the
            model's highest version.
        batch_size: images per batch; None: the server's choice. It never changes the images.
        include_probabilities: whether batches also have the preactivated outputs, float32 in [0, 1].
        revision: what all images must come from; None: that of the first batch. A stream resumes at its
            revision or, where no server has it any more, raises RevisionChangedError.
        labels: for class-conditional models: a class, or several: image i is of class labels[i % len(labels)];
            empty: each is drawn. A class is a number from 0 or a name of `get_model().classes`; names take
            another call, and without a revision the images are of the one that the call found.
        request_id: up to 128 letters, digits and ._:/@+=- that name all tries in the servers' logs and traces.
        timeout_seconds: for the whole stream, retries and waits included, in place of the client's.

        When a server is away, restarts or breaks the connection, the stream resumes at its next image, as the
        retry policy says, and logs a warning; every image arrives exactly once. Several servers make shards of
        the stream at the same time; one that stays away leaves its images to the others. The call begins when the
        first batch is asked for, and ends when the iterator is closed.

        Raises a SamplingError: at once for values that cannot be sent, and while batches are read for what the
        call fails with; its `next_index` says where to resume.
        """
        request = checked_request(
            image_count=image_count,
            seed=seed,
            model=model,
            version=version,
            first_index=first_index,
            batch_size=batch_size,
            include_probabilities=include_probabilities,
            revision=revision,
            labels=labels,
            request_id=request_id,
        )
        timeout = self._timeout(timeout_seconds, request.image_count)
        return self._named(request, timeout) if request.has_names else self._batches(request, timeout)

    def _batches(self, request: SampleRequest, timeout: float | None) -> Batches:
        """The stream of a request, from one server or from several."""
        if len(self.targets) > 1 and is_splittable(request):
            shards = Shards(request, server_count=len(self.targets))
            workers = self._workers(self._connected, shards, self._lifetime)
            batches: Batches = workers.batches(self._retry, timeout)
            return batches
        return self._stream(request, timeout)

    def _connected(self, next_index: int | None = None) -> list[Connection[Channel]]:
        """The connections for a call, or for a stream at an image; made by the first.

        Raises SamplingError if the client is closed, and RuntimeError where it cannot be used.
        """
        if self._lifetime.is_closed:
            raise closed_error(next_index)
        note_use(by_asyncio=self._grpc is grpc.aio)
        if not self._connections or self._pid != os.getpid():
            # gRPC 1.73 closes a forked process's connections. Those are kept: to free them could hang.
            self._inherited, self._pid = self._connections, os.getpid()
            self._connections = [self._connect(target) for target in self.targets]
        return self._connections

    @abstractmethod
    def _collect(self, batches: Batches) -> Batch:
        """All images of a stream."""

    @abstractmethod
    def _named(self, request: SampleRequest, timeout: float | None) -> Batches:
        """The stream of a request whose labels are names, of which a server is asked first."""

    @abstractmethod
    def _stream(self, request: SampleRequest, timeout: float | None) -> Batches:
        """The stream from the first server."""

    def _connect(self, target: str) -> Connection[Channel]:
        options = self._options(target)
        channel = open_channel(self._grpc, target, self._credentials, options, self._interceptors)
        lenient: Any = LenientChannel(channel)
        stub = sampling_pb2_grpc.SamplingServiceStub(lenient)
        return Connection(
            target=target,
            channel=channel,
            stub=stub,
            token=self._token,
            own_metadata=self._metadata,
            is_secure=self._credentials is not None,
            proxy=proxy_of(target),
        )

    def _options(self, target: str) -> dict[str, Any]:
        """Those of a channel, by name."""
        return {
            **dict(self._retry.channel_options()),
            "grpc.max_receive_message_length": _MAX_RECEIVED_BYTES,
            "grpc.keepalive_time_ms": round(1000 * KEEPALIVE_SECONDS),
            "grpc.keepalive_timeout_ms": round(1000 * KEEPALIVE_TIMEOUT_SECONDS),
            # Without this gRPC waits a minute for the answer, whatever the keepalive's timeout.
            "grpc.http2.ping_timeout_ms": round(1000 * KEEPALIVE_TIMEOUT_SECONDS),
            "grpc.http2.max_pings_without_data": 0,
            # Otherwise channels to one address share a connection, and so one worker of the server.
            "grpc.use_local_subchannel_pool": 1,
            # What stays on this machine needs no proxy, and a proxy would look for it on its own.
            **({"grpc.enable_http_proxy": 0} if is_local(target) else {}),
            **self._own_options,
        }

    def _retries(self, timeout_seconds: Timeout) -> Retries:
        """The tries of a call that is no stream."""
        return Retries(", ".join(self.targets), self._retry, self._timeout(timeout_seconds))

    def _timeout(self, given: Timeout, image_count: int = 0) -> float | None:
        if given is UNSET and self._timeout_seconds is not None:
            given = self._timeout_seconds + STREAM_SECONDS_PER_IMAGE * max(image_count, 0)
        seconds = None if given is UNSET else given
        if not _is_timeout(seconds):
            raise InvalidRequestError.of("timeout_seconds", f"is {seconds!r}; use seconds, or None for no limit")
        return None if seconds is None or seconds > _NO_LIMIT_SECONDS else float(seconds)


def model_request(
    name: str | None, version: int | None, revision: str | None = None
) -> sampling_pb2.GetModelRequest:
    """A request for a model. Raises InvalidRequestError for a value that cannot be sent."""
    number = 0 if version is None else check_integer("version", version)
    name = "" if name is None else check_text("name", name)
    return sampling_pb2.GetModelRequest(name=name, version=number, revision=revision or "")


def _refuse_plaintext(targets: Iterable[str]) -> None:
    """Raises ValueError unless a token would stay on this machine."""
    for target in targets:
        if not is_local(target):
            raise ValueError(
                f"the token would go to {target} in plaintext, for all on the way to read; use TLS "
                "(tls_credentials(), --tls or --tls-ca), or insist (plaintext_token=True, --plaintext-token)"
            )


def _is_timeout(seconds: Any) -> bool:
    """Whether it is a number of seconds, which may be infinite, or None."""
    is_number = isinstance(seconds, Real) and not isinstance(seconds, bool)
    return seconds is None or (is_number and (seconds > 0 or seconds <= 0))  # NaN is neither
