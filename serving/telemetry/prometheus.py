"""Metrics for Prometheus: their names, and the port that shows them."""
# ruff: noqa: D102 - `Metrics` says what its methods mean

import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from ..config.addresses import cannot_listen, in_brackets
from ..errors import CallError, StartError
from ..models.registry import Registry
from .metrics import WORKERS_VARIABLE, Metrics, T
from .metrics_port import serve_metrics

_INFERENCE_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_QUEUE_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_log = logging.getLogger(__name__)

disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter, which nobody reads


class PrometheusMetrics(Metrics):
    """Counts in a registry of its own, not in the global one."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry, multiprocess_mode="livesum")
        self._images = counter("bgan_images", "Images sent.", ["model"])
        self._batches = counter("bgan_batches", "Messages of images sent.", ["model"])
        self._inference = histogram(
            "bgan_inference_seconds",
            "Seconds to compute one batch: noise, inference and packing.",
            ["model"],
            buckets=_INFERENCE_BUCKETS,
        )
        self._gated_images = counter("bgan_gated_images", "Images computed by models with gates.", ["model"])
        self._part_runs = counter("bgan_part_runs", "Those of them for which a part ran.", ["model", "part"])
        self._queue = histogram(
            "bgan_queue_seconds", "Seconds that calls without a free slot waited.", buckets=_QUEUE_BUCKETS
        )
        self._streams = gauge("bgan_streams", "Streams and inferences that have a slot now.")
        self._queued = gauge("bgan_queued_calls", "Calls that wait for a slot now.")
        self._ready_workers = gauge("bgan_ready_workers", "Processes whose health is SERVING.")
        self._model_info = gauge(
            "bgan_model_info",
            "1 for each version that is served, 0 for those that were.",
            ["model", "version", "revision"],
            multiprocess_mode="livemax",
        )
        self._model_failures = gauge(
            "bgan_model_failures",
            "Files in the folder of models that cannot be served.",
            multiprocess_mode="livemax",
        )
        rejected = counter("bgan_rejected", "Calls that ended with an error.", ["reason"])
        self._rejected: dict[type[Exception], Counter] = {
            kind: rejected.labels(kind.reason) for kind in CallError.kinds
        }
        self._internal = rejected.labels("internal")
        self._of_model: dict[str, tuple[Counter, Counter, Histogram]] = {}
        self._served: set[tuple[str, str, str]] = set()
        gauge("bgan_workers", "Processes that run.").set(1)

    def serving(self, registry: Registry) -> None:
        """Every series of a model is there from now on, at 0; a version that is gone stays, as a 0."""
        served = {(engine.manifest.name, str(engine.version), engine.revision) for engine in registry.engines}
        for labels in self._served | served:
            self._model_info.labels(*labels).set(labels in served)
        self._served |= served
        self._model_failures.set(len(registry.failures))
        for engine in registry.engines:
            if engine.part_count:
                self.routed(engine.manifest.name, 0, [0] * engine.part_count)
        self._of_model |= {
            model: (self._images.labels(model), self._batches.labels(model), self._inference.labels(model))
            for model in registry.names
        }

    def ready(self, is_ready: bool) -> None:
        self._ready_workers.set(is_ready)

    def running(self, change: int) -> None:
        self._streams.inc(change)

    def queued(self) -> None:
        self._queued.inc()

    def waited(self, seconds: float) -> None:
        self._queued.dec()
        self._queue.observe(seconds)

    def timed(self, model: str, compute: Callable[..., T], *arguments: object) -> T:
        started = time.perf_counter()
        batch = compute(*arguments)
        self.computed(model, time.perf_counter() - started)
        return batch

    def computed(self, model: str, seconds: float) -> None:
        _, _, inference = self._of_model[model]
        inference.observe(seconds)

    def routed(self, model: str, image_count: int, part_runs: Sequence[int]) -> None:
        self._gated_images.labels(model).inc(image_count)
        for part, runs in enumerate(part_runs):
            self._part_runs.labels(model, str(part)).inc(runs)

    def sent(self, model: str, image_count: int) -> None:
        images, batches, _ = self._of_model[model]
        images.inc(image_count)
        batches.inc()

    def scrape(self) -> bytes:
        folder = os.environ.get(WORKERS_VARIABLE)
        return generate_latest(self.registry if folder is None else registry_of_folder(Path(folder)))

    def rejected(self, error: Exception) -> None:
        self._rejected.get(type(error), self._internal).inc()


def registry_of_folder(folder: Path) -> CollectorRegistry:
    """What the workers left in a folder, added up at each scrape."""
    registry = CollectorRegistry()
    _FolderCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return registry


class _FolderCollector(MultiProcessCollector):
    """Passes over empty files: a worker that starts makes them so, and may be killed before it writes to them."""

    def collect(self) -> Any:
        files = [str(path) for path in Path(self._path).glob("*.db") if _is_written(path)]
        return self.merge(files, accumulate=True)  # type: ignore[no-untyped-call]


def _is_written(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:  # of a gauge whose worker has ended
        return False


def show(registry: CollectorRegistry, host: str, port: int) -> None:
    """Answer scrapes from a thread until the process ends. Raises StartError if the port is taken."""
    try:
        shown_on = serve_metrics(registry, host.strip("[]"), port)
    except (OSError, UnicodeError) as error:
        raise StartError(cannot_listen(error, host, port, use="metrics")) from error
    _log.info("metrics on http://%s:%d/metrics", in_brackets(host), shown_on)
