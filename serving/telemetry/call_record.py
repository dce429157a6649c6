"""What is known of one call while it is answered."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc

from ..errors import printable
from ..models.engine import Engine

_current: ContextVar[CallRecord] = ContextVar("call")


@dataclass(slots=True)
class CallRecord:
    """One call. It outlives the call for a while, so it holds words and numbers, no model."""

    method: str
    """package.Service/Method."""
    request_id: str
    """The caller's own, or one that was made."""
    peer: str
    """The caller's address, as gRPC writes it."""
    started: float
    """When it began, on the performance counter."""
    model: str = ""
    revision: str = ""
    image_count: int = 0
    """Images sent so far."""
    code: grpc.StatusCode = grpc.StatusCode.OK
    text: str = ""
    """What the caller is told of an error."""
    seconds: float = 0.0
    """How long it took."""
    span: Any = None
    """What `Tracing.begin` gave for it."""

    def serves(self, engine: Engine) -> None:
        """Note the model that answers."""
        self.model, self.revision = engine.manifest.name, engine.revision

    def as_text(self) -> str:
        """A line for people."""
        method = self.method.rpartition("/")[2]
        images = f", {self.image_count} images of {self.model}" if self.model else ""
        text = f": {printable(self.text)}" if self.text else ""
        who = f"request {self.request_id} from {self.peer}"
        return f"{method} {self.code.name} in {self.seconds:.3f} s{images}, {who}{text}"

    def as_fields(self) -> dict[str, Any]:
        """The same for programs."""
        fields = {
            "event": "call",
            "request_id": self.request_id,
            "method": self.method,
            "code": self.code.name,
            "seconds": round(self.seconds, 6),
            "peer": self.peer,
            "model": self.model,
            "revision": self.revision,
            "images": self.image_count,
            "error": self.text,
        }
        return {name: value for name, value in fields.items() if value != ""}


set_current_call = _current.set
current_call = _current.get
"""The call that this task answers."""
