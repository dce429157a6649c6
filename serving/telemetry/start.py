"""Starts the metrics and traces that the settings ask for: prometheus_client and OpenTelemetry load only then."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..config.settings import ServerSettings
from ..config.shared_folder import shared_folder
from ..config.sources import standard_trace_endpoint
from ..errors import SettingError, StartError
from .calls import Tracing
from .metrics import NO_METRICS, WORKERS_VARIABLE, Metrics

_log = logging.getLogger(__name__)
_ENDPOINT = re.compile(r"https?://[^/\s]+/?")


def start_metrics(settings: ServerSettings, *, is_worker: bool = False) -> Metrics:
    """The metrics of a process, shown on its metrics port, if it has one. Raises StartError if it is taken.

    Those of a worker go to the folder that WORKERS_VARIABLE names instead.
    """
    if not _are_shown(settings):
        return NO_METRICS
    if not is_worker:  # another program's, as of gunicorn, is not this one's
        for variable in (WORKERS_VARIABLE, WORKERS_VARIABLE.lower()):
            os.environ.pop(variable, None)
    from .prometheus import PrometheusMetrics, show

    metrics = PrometheusMetrics()
    if not is_worker and settings.metrics_port is not None:
        show(metrics.registry, settings.metrics_host, settings.metrics_port)
    return metrics


@contextmanager
def workers_folder(settings: ServerSettings) -> Iterator[Path | None]:
    """A folder for the values of all workers, shown together; None if no port shows them.

    Values outlive the workers that left them there, so that no counter ever falls. Raises StartError.
    """
    if not _are_shown(settings):
        yield None
        return
    from .prometheus import registry_of_folder, show

    with shared_folder("bgan-metrics-", "the metrics") as folder:
        if settings.metrics_port is not None:
            show(registry_of_folder(folder), settings.metrics_host, settings.metrics_port)
        yield folder


def _are_shown(settings: ServerSettings) -> bool:
    return settings.metrics_port is not None or settings.http_port is not None


def count_worker(folder: Path | None, pid: int, *, is_counted: bool) -> None:
    """Leave the gauges of a worker out of the sums while it is silent, or take them in again."""
    if folder is None:
        return
    is_at, to_be_at = ("_silent", "") if is_counted else ("", "_silent")
    for path in folder.glob(f"gauge_live*_{pid}.db{is_at}"):
        path.rename(path.with_suffix(f".db{to_be_at}"))


def forget_worker(folder: Path | None, pid: int) -> None:
    """Take the gauges of a worker that exited (running calls, models) out of the sums; its counters stay."""
    count_worker(folder, pid, is_counted=True)
    if folder is not None:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def start_tracing(settings: ServerSettings) -> Tracing:
    """The tracing of a process. Raises StartError as `check_tracing` does, and for OpenTelemetry's variables."""
    if settings.trace_endpoint is None:
        if variable := standard_trace_endpoint()[1]:
            _log.warning(
                "%s is %s: traces are sent over gRPC alone, so there are none", variable, os.environ[variable]
            )
        return Tracing()
    if not check_tracing(settings):
        return Tracing()
    from .otlp import OtlpTracing

    try:
        return OtlpTracing(settings.trace_endpoint)
    except Exception as error:  # of several classes, for a value of one of its variables
        there = ", ".join(sorted(name for name in os.environ if name.startswith("OTEL_"))) or "none"
        raise StartError(f"OpenTelemetry does not start ({error}); its variables that are set: {there}") from error


def check_tracing(settings: ServerSettings) -> bool:
    """Whether traces can be sent. Raises StartError for an endpoint that is invalid, or lacks packages.

    Where OpenTelemetry's variables name it, which may be there for other programs, missing packages are a warning.
    """
    if settings.trace_endpoint is None:
        return False
    if not _ENDPOINT.fullmatch(settings.trace_endpoint):
        raise SettingError(
            f"the trace endpoint {settings.trace_endpoint!r} is not the address of a collector; "
            "name where it takes OTLP over gRPC, such as http://localhost:4317"
        )
    try:
        from . import otlp  # noqa: F401
    except ModuleNotFoundError as error:
        text = f"a trace endpoint needs the package {error.name!r}: pip install 'bgan[trace]'"
        endpoint, variable = standard_trace_endpoint()
        if endpoint != settings.trace_endpoint:
            raise StartError(text) from error
        _log.warning("%s is set, but %s; there are no traces", variable, text)
        return False
    return True
