"""The health of the server, and of each model as a service of its own, as `grpc.health.v1` tells it."""

from __future__ import annotations

from collections.abc import Iterable

from grpc_health.v1 import health, health_pb2

from ..models.registry import Registry
from .health_check import model_service

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """Tells the health of `services` and of the models, NOT_SERVING at first."""

    def __init__(self, services: Iterable[str]) -> None:
        self.servicer = health.aio.HealthServicer()
        self.is_serving = False
        """Whether calls will be answered; `tell` says it to those who ask."""
        self._services = ("", *services)
        self._models: set[str] = set()  # every one that was there

    async def tell(self, registry: Registry | None) -> None:
        """These are the models now."""
        served = registry.names if registry is not None else ()
        failures = registry.failures if registry is not None else ()
        self._models |= {*served, *(failure.model for failure in failures)}
        for service in self._services:
            await self._set(service, self.is_serving)
        for name in self._models:
            await self._set(model_service(name), self.is_serving and name in served)

    async def _set(self, service: str, is_serving: bool) -> None:
        await self.servicer.set(service, _SERVING if is_serving else _NOT_SERVING)
