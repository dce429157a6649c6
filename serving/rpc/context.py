"""What the services of a server share, and which models they serve."""

import os
from dataclasses import dataclass
from typing import Self

from ..config.settings import ServerSettings
from ..errors import NotReadyError
from ..models.engine import Engine
from ..models.registry import Registry
from ..security.auth import Authenticator, build_authenticator, caller
from ..security.tls import Certificates
from ..telemetry.calls import Calls, current_call
from ..telemetry.metrics import Metrics
from ..telemetry.start import start_tracing
from .admission import Admission
from .pool import FairPool


class CurrentModels:
    """The models that new calls get."""

    def __init__(self) -> None:
        self.registry: Registry | None = None
        """All of them; None until they are loaded."""

    def visible(self) -> Registry:
        """Those that the caller may know of. Raises NotReadyError until they are loaded."""
        if self.registry is None:
            raise NotReadyError("the models are still loading; try again in a second")
        return self.registry.visible_to(caller().model_patterns)

    def find(self, name: str, *, version: int = 0, revision: str = "") -> Engine:
        """The model that this call asks for, which its record then names. Raises as `Registry.find` does."""
        engine = self.visible().find(name, version=version, revision=revision)
        record = current_call()
        record.model, record.revision = engine.manifest.name, engine.revision
        return engine


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """The collaborators of all services of a server."""

    settings: ServerSettings
    metrics: Metrics
    calls: Calls
    authenticator: Authenticator
    admission: Admission
    threads: int
    """How many batches `pool` computes at once."""
    pool: FairPool
    models: CurrentModels

    @classmethod
    def build(cls, settings: ServerSettings, metrics: Metrics, certificates: Certificates | None = None) -> Self:
        """Make them; `certificates` are those of the listeners.

        Raises ServingError if the settings of traces or tokens are invalid.
        """
        clients = None if certificates is None else certificates.clients
        threads = settings.threads or max(1, (os.cpu_count() or 1) // settings.workers)
        return cls(
            settings=settings,
            metrics=metrics,
            calls=Calls(settings, start_tracing(settings)),
            authenticator=build_authenticator(settings, clients),
            admission=Admission(settings, metrics),
            threads=threads,
            pool=FairPool(threads),
            models=CurrentModels(),
        )

    def close(self) -> None:
        """End its threads, without waiting for what they compute."""
        self.pool.shutdown()
        self.calls.tracing.stop()
