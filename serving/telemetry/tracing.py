"""The tracing of calls; `otlp` is loaded only for a trace endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .call_record import CallRecord


class Tracing:
    """Follows calls from begin to end. This one, for servers without a trace endpoint, does nothing."""

    def begin(self, method: str, metadata: Mapping[str, str | bytes]) -> Any:
        """A call arrived; returns its `CallRecord.span`."""

    def end(self, record: CallRecord) -> None:
        """It ended, as its record says."""

    def stop(self) -> None:
        """Send what is left and return soon."""
