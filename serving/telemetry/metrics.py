"""What is counted of a running server, if anything is: `prometheus` is loaded only for a metrics port."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from ..models.registry import Registry

WORKERS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Tells prometheus_client, before it is imported, the folder in which a worker's values lie."""
T = TypeVar("T")


class Metrics:
    """What happens that can be counted. This one counts nothing: it is that of a server without a metrics port."""

    def serving(self, registry: Registry) -> None:
        """These are the models from now on."""

    def ready(self, is_ready: bool) -> None:
        """Whether this process says that it is healthy."""

    def running(self, change: int) -> None:
        """A stream or an inference got a slot (1), or gave it back (-1)."""

    def queued(self) -> None:
        """A call waits for a slot."""

    def waited(self, seconds: float) -> None:
        """It no longer waits: it got a slot, or gave up."""

    def timed(self, model: str, compute: Callable[..., T], *arguments: object) -> T:
        """Compute a batch of a model that is served, or was; in any thread."""
        return compute(*arguments)

    def computed(self, model: str, seconds: float) -> None:
        """A batch of a model took these seconds of a thread."""

    def routed(self, model: str, image_count: int, part_runs: Sequence[int]) -> None:
        """Images of a model with gates were computed; each part ran for so many of them."""

    def sent(self, model: str, image_count: int) -> None:
        """A message of images was handed to its reader."""

    def scrape(self) -> bytes:
        """All that was counted, of all workers together, in Prometheus' text format."""
        return b""

    def rejected(self, error: Exception) -> None:
        """A call ended with an error."""


NO_METRICS = Metrics()
