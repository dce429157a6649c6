"""What is counted of a running server, if anything is: `prometheus` is loaded only for a metrics port."""

from __future__ import annotations

from ..models.registry import Registry

WORKERS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Tells prometheus_client, before it is imported, the folder in which a worker's values lie."""


class Metrics:
    """What happens that can be counted. This one counts nothing: it is that of a server without a metrics port."""

    def serving(self, registry: Registry) -> None:
        """These are the models from now on."""

    def ready(self, is_ready: bool) -> None:
        """Whether this process says that it is healthy."""

    def entered(self) -> None:
        """A stream or an inference has its place."""

    def left(self) -> None:
        """It has given it back."""

    def queued(self) -> None:
        """A call waits for a place."""

    def waited(self, seconds: float) -> None:
        """It waits no more: it got one, or gave up."""

    def inferred(self, model: str, seconds: float) -> None:
        """A batch was computed; `model` is one that is served, or was."""

    def sent(self, model: str, image_count: int) -> None:
        """A message of images was handed to its reader."""

    def rejected(self, error: Exception) -> None:
        """A call ended with an error."""


NO_METRICS = Metrics()
