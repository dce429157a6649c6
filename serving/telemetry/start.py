"""Starts the metrics and traces that the settings ask for: prometheus_client and OpenTelemetry load only then."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from ..config.settings import ServerSettings
from ..errors import StartError
from .metrics import NO_METRICS, Metrics
from .tracing import Tracing


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


_PACKAGES = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.grpc")
_ENDPOINT = re.compile(r"https?://[^/\s]+/?")


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
