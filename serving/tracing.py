"""Which calls are traced, if any are: `otlp` is loaded only for a trace endpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .config import ServerSettings
from .errors import StartError

if TYPE_CHECKING:
    from .calls import CallRecord

_PACKAGES = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.grpc")
_ENDPOINT = re.compile(r"https?://[^/\s]+/?")


class Tracing:
    """Follows calls from begin to end. This one follows none: it is that of a server without a trace endpoint."""

    def begin(self, method: str, metadata: Mapping[str, str | bytes]) -> Any:
        """A call arrived; what is returned is its `CallRecord.span`."""

    def end(self, record: CallRecord) -> None:
        """It ended, as its record says."""

    def stop(self) -> None:
        """Send what is left, and return soon."""


def start_tracing(settings: ServerSettings) -> Tracing:
    """The tracing of a process. Raises StartError as `check_tracing` does."""
    if settings.trace_endpoint is None:
        return Tracing()
    check_tracing(settings)
    from .otlp import OtlpTracing

    return OtlpTracing(settings.trace_endpoint)


def check_tracing(settings: ServerSettings) -> None:
    """Raises StartError if there is a trace endpoint that cannot be, or cannot be sent to."""
    if settings.trace_endpoint is None:
        return
    if not _ENDPOINT.fullmatch(settings.trace_endpoint):
        raise StartError(
            f"the trace endpoint {settings.trace_endpoint!r} is no address of a collector; "
            "name where it takes OTLP over gRPC, such as http://localhost:4317"
        )
    for package in _PACKAGES:
        if not _is_there(package):
            raise StartError(f"a trace endpoint needs the package {package!r}: pip install 'bgan[trace]'")


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # not even what it is a part of
        return False
