"""What a service asks of the call that it answers, whichever protocol brought it."""

from typing import Any, Protocol


class CallContext(Protocol):
    """What `grpc.aio.ServicerContext` has, and `web.http_call.HttpCall` too: a method cannot tell which it got."""

    def peer(self) -> str:
        """The other side, as gRPC writes it."""

    def invocation_metadata(self) -> Any:
        """What came with the call, (key, value) in pairs; HTTP's headers."""

    def auth_context(self) -> Any:
        """What TLS knows of the other side: the client's certificates as PEM, by gRPC's names."""

    def time_remaining(self) -> float | None:
        """Seconds until the call's deadline; None: it has none."""

    def set_trailing_metadata(self, metadata: Any) -> None:
        """What every answer is to carry."""

    async def read(self) -> Any:
        """The request."""

    async def write(self, message: bytes) -> None:
        """Send a message, once the one before was taken."""
