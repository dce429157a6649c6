"""What the blocking and the asyncio client share: settings, and how a call is opened and ended."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

import grpc

from ._credentials import check_token
from ._retry import RetryPolicy

DEFAULT_TIMEOUT_SECONDS = 10.0
STREAM_SECONDS_PER_IMAGE = 0.01
_RECEIVE_BYTES_AT_MOST = 64 * 1024 * 1024
# A server that hangs, or is gone without a word, is noticed after both times; bgan's take a ping every 10 s.
KEEPALIVE_SECONDS = 30.0
KEEPALIVE_TIMEOUT_SECONDS = 20.0


class _Unset(enum.Enum):
    """Tells a timeout that was not given from None, which means none at all."""

    UNSET = enum.auto()


UNSET: Final = _Unset.UNSET


Timeout = float | None | _Unset


class BaseClient:
    """Settings, and what follows from them."""

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
        """Make a client; it connects with its first call.

        target: the server's address, such as "localhost:50051", or those of several servers of the same
            models. Streams are then split over all of them; other calls go to the first that is there.
            An address that is given several times gets as many connections.
        timeout_seconds: how long a call may take, tries and waits included; a stream gets 10 ms more for
            each image. None: no limit.
        retry: how to go on when a server is away or restarts; RetryPolicy() unless given.
        credentials: for TLS, such as `tls_credentials()`; None: plaintext.
        server_name: the name that the server's certificate must be good for, if it is not that of the target.
        token: what a server asks for that has tokens; goes with every call. Raises ValueError if it cannot be one.
        """
        self.targets = (target,) if isinstance(target, str) else tuple(target)
        """The servers' addresses."""
        if not self.targets:
            raise ValueError("no server was named; give at least one address")
        self._timeout_seconds = timeout_seconds
        self._retry = retry or RetryPolicy()
        self._credentials = credentials
        self._token = None if token is None else check_token(token)
        self._options = [
            *self._retry.channel_options(),
            ("grpc.max_receive_message_length", _RECEIVE_BYTES_AT_MOST),
            ("grpc.keepalive_time_ms", round(1000 * KEEPALIVE_SECONDS)),
            ("grpc.keepalive_timeout_ms", round(1000 * KEEPALIVE_TIMEOUT_SECONDS)),
            # Without this gRPC waits a minute for the answer, whatever the keepalive's timeout.
            ("grpc.http2.ping_timeout_ms", round(1000 * KEEPALIVE_TIMEOUT_SECONDS)),
            ("grpc.http2.max_pings_without_data", 0),
            # Otherwise channels to one address share a connection, and so one worker of the server.
            ("grpc.use_local_subchannel_pool", 1),
            *([] if server_name is None else [("grpc.ssl_target_name_override", server_name)]),
        ]

    def _timeout(self, given: Timeout, image_count: int = 0) -> float | None:
        if given is not UNSET:
            return given
        if self._timeout_seconds is None:
            return None
        return self._timeout_seconds + STREAM_SECONDS_PER_IMAGE * image_count
