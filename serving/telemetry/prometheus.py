"""Metrics for Prometheus: their names, and the port that shows them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from ..errors import (
    DeadlinePassedError,
    InvalidRequestError,
    ModelNotFoundError,
    NotAllowedError,
    NotReadyError,
    OverloadedError,
    QuotaSpentError,
    RevisionNotServedError,
    StalledReaderError,
    StartError,
    StreamCutError,
    UnauthenticatedError,
)
from ..models.registry import Registry
from .metrics import Metrics

_REASONS: dict[type[Exception], str] = {
    InvalidRequestError: "invalid_request",
    ModelNotFoundError: "model_not_found",
    RevisionNotServedError: "revision_not_served",
    NotReadyError: "not_ready",
    UnauthenticatedError: "unauthenticated",
    NotAllowedError: "not_allowed",
    OverloadedError: "overloaded",
    QuotaSpentError: "quota_spent",
    DeadlinePassedError: "deadline_passed",
    StreamCutError: "stopping",
    StalledReaderError: "stalled_reader",
}
_INTERNAL = "internal"
_INFERENCE_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_QUEUE_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_log = logging.getLogger(__name__)

disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter, which nobody reads


@dataclass(frozen=True, slots=True)
class _OfModel:
    """What is counted for each model apart."""

    images: Counter
    batches: Counter
    inference: Histogram


class PrometheusMetrics(Metrics):
    """Counts in a registry of its own, in no other place of this process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._images = Counter("bgan_images", "Images sent.", ["model"], registry=registry)
        self._batches = Counter("bgan_batches", "Messages of images sent.", ["model"], registry=registry)
        self._inference = Histogram(
            "bgan_inference_seconds",
            "Time that one batch took to compute: noise, inference and packing.",
            ["model"],
            buckets=_INFERENCE_BUCKETS,
            registry=registry,
        )
        self._queue = Histogram(
            "bgan_queue_seconds",
            "Time that calls waited which found no place at once.",
            buckets=_QUEUE_BUCKETS,
            registry=registry,
        )
        self._streams = Gauge(
            "bgan_streams",
            "Streams and inferences that have a place now.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._queued = Gauge(
            "bgan_queued_calls", "Calls that wait for a place now.", registry=registry, multiprocess_mode="livesum"
        )
        self._workers = Gauge(
            "bgan_workers", "Processes that run.", registry=registry, multiprocess_mode="livesum"
        )
        self._ready_workers = Gauge(
            "bgan_ready_workers",
            "Processes whose health is SERVING.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._model_info = Gauge(
            "bgan_model_info",
            "1 for each version that is served, 0 for those that were.",
            ["model", "version", "revision"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._model_failures = Gauge(
            "bgan_model_failures",
            "Files in the folder of models that cannot be served.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        rejected = Counter("bgan_rejected", "Calls that ended with an error.", ["reason"], registry=registry)
        self._rejected = {error: rejected.labels(reason) for error, reason in _REASONS.items()}
        self._internal = rejected.labels(_INTERNAL)
        self._of_model: dict[str, _OfModel] = {}
        self._served: set[tuple[str, str, str]] = set()
        self._workers.set(1)

    def serving(self, registry: Registry) -> None:
        """Every series of a model is there from now on, at 0; a version that is gone stays, as a 0."""
        served = {(engine.manifest.name, str(engine.version), engine.revision) for engine in registry.engines}
        for labels in self._served | served:
            self._model_info.labels(*labels).set(labels in served)
        self._served |= served
        self._model_failures.set(len(registry.failures))
        for model in registry.names:
            if model not in self._of_model:
                self._of_model[model] = _OfModel(
                    self._images.labels(model), self._batches.labels(model), self._inference.labels(model)
                )

    def ready(self, is_ready: bool) -> None:
        """One process more, or less, that is healthy."""
        self._ready_workers.set(is_ready)

    def entered(self) -> None:
        """One stream more."""
        self._streams.inc()

    def left(self) -> None:
        """One stream less."""
        self._streams.dec()

    def queued(self) -> None:
        """One call more that waits."""
        self._queued.inc()

    def waited(self, seconds: float) -> None:
        """One call less that waits."""
        self._queued.dec()
        self._queue.observe(seconds)

    def inferred(self, model: str, seconds: float) -> None:
        """One batch more, for any thread."""
        self._of_model[model].inference.observe(seconds)

    def sent(self, model: str, image_count: int) -> None:
        """One message more."""
        counters = self._of_model[model]
        counters.images.inc(image_count)
        counters.batches.inc()

    def rejected(self, error: Exception) -> None:
        """One error more, by its kind."""
        self._rejected.get(type(error), self._internal).inc()


def registry_of_folder(folder: Path) -> CollectorRegistry:
    """What the workers left in a folder, added up at each scrape."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return registry


def drop_gauges(folder: Path, pid: int) -> None:
    """Take the gauges of a process that ended out of a folder; its counters stay."""
    mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def show(registry: CollectorRegistry, host: str, port: int) -> None:
    """Answer scrapes from a thread until the process ends. Raises StartError if the port is taken."""
    try:
        server, _ = start_http_server(port, host.strip("[]"), registry)
    except OSError as error:
        raise StartError(
            f"cannot listen on {host}:{port} for metrics; choose another --metrics-port, or 0 for a free one"
        ) from error
    _log.info("metrics on http://%s:%d/metrics", host, server.server_port)
