"""What is counted of a running server, if anything is: `prometheus` is loaded only for a metrics port."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from .config import ServerSettings
from .errors import StartError
from .registry import Registry

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


def start_metrics(settings: ServerSettings) -> Metrics:
    """The metrics of a process that serves alone, shown on its metrics port. Raises StartError if it is taken."""
    if settings.metrics_port is None:
        return NO_METRICS
    from .prometheus import PrometheusMetrics, show

    metrics = PrometheusMetrics()
    show(metrics.registry, settings.metrics_host, settings.metrics_port)
    return metrics


def worker_metrics(settings: ServerSettings) -> Metrics:
    """The metrics of a worker: they go to the folder that WORKERS_VARIABLE names."""
    if settings.metrics_port is None:
        return NO_METRICS
    from .prometheus import PrometheusMetrics

    return PrometheusMetrics()


@contextmanager
def workers_folder(settings: ServerSettings) -> Iterator[Path | None]:
    """A folder for the values of all workers, shown together on the metrics port; None where there is no port.

    Values outlive the workers that left them there, so that no counter ever falls. Raises StartError.
    """
    if settings.metrics_port is None:
        yield None
        return
    from .prometheus import registry_of_folder, show

    with _temporary_folder() as folder:
        show(registry_of_folder(Path(folder)), settings.metrics_host, settings.metrics_port)
        yield Path(folder)


def _temporary_folder() -> TemporaryDirectory[str]:
    try:
        return TemporaryDirectory(prefix="bgan-metrics-")
    except OSError as error:
        raise StartError(
            f"the metrics of several workers need a folder for temporary files ({error.strerror}); "
            "name one that can be written to with TMPDIR, or use 1 worker"
        ) from error


def forget_worker(folder: Path | None, pid: int) -> None:
    """Take what a worker that ended had running, and the models that it had, out of the sums."""
    if folder is not None:
        from .prometheus import drop_gauges

        drop_gauges(folder, pid)
