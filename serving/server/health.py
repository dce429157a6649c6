"""The health of a server and of its models: `grpc.health.v1`, answered from what is known, without a lock."""

import asyncio
from fnmatch import fnmatchcase
from typing import Any

from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ..errors import NotReadyError
from ..models.registry import Registry
from ..rpc import open_inference
from ..rpc.admission import Places
from ..rpc.context import ServiceContext
from ..rpc.guard import status_of
from ..security.auth import caller
from .health_check import SAMPLING, model_service

SERVICES = (SAMPLING.full_name, open_inference.DESCRIPTOR.full_name)
"""Those that compute images."""
_MAX_WATCHES = 1024
_MODEL_PREFIX = model_service("")
_STATUS = health_pb2.HealthCheckResponse
_UNKNOWN = "there is no such service here"


class Health(health_pb2_grpc.HealthServicer):
    """The health of the server, and of each model as a service of its own; NOT_SERVING at first.

    Each watch writes what it finds when it is ready to, so that one that is not read keeps nobody waiting.
    """

    def __init__(self, context: ServiceContext) -> None:
        self.is_serving = False
        """Whether calls will be answered; `tell` says it to those who ask."""
        self._settings = context.settings
        self._models = context.models
        self._names: set[str] = set()  # of every model that was there
        self._states: dict[str, Any] = {}
        self._changed = asyncio.Event()
        self._watches = Places(
            "as many watch the health as may",
            of_address=context.settings.max_streams_per_caller,
            in_all=_MAX_WATCHES,
        )
        self._has_ended = False
        self.tell()

    def tell(self) -> None:
        """Set the health of every service and model by `is_serving` and the current models, until `end`."""
        registry = self._models.registry or Registry(())
        self._names |= {*registry.names, *(failure.model for failure in registry.failures)}
        is_serving = self.is_serving and not self._has_ended
        states = dict.fromkeys(("", *SERVICES), is_serving)
        states |= {model_service(name): is_serving and name in registry.names for name in self._names}
        self._states = {name: _STATUS.SERVING if up else _STATUS.NOT_SERVING for name, up in states.items()}
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def end(self) -> None:
        """NOT_SERVING from now on, whatever comes."""
        self._has_ended = True
        self.tell()

    async def Check(self, request: Any, context: Any) -> Any:
        """The state of one service."""
        status = self._state(request.service)
        if status == _STATUS.SERVICE_UNKNOWN:
            missing = StatusCode.NOT_FOUND, _UNKNOWN
            await context.abort(*missing, (status_of(*missing, "SERVICE_NOT_FOUND"),))
        return _STATUS(status=status)

    async def Watch(self, request: Any, context: Any) -> None:
        """The state of one service, and each later one that its reader is ready for."""
        self._watches.take(context.peer())
        told = None
        while True:
            changed = self._changed
            status = self._state(request.service)
            if status != told:
                caller().check()
                await self._write(status, context)
                told = status
            await changed.wait()

    def _state(self, service: str) -> Any:
        """The state of a service, as its caller may know it: a token learns of its own models alone."""
        _, is_model, name = service.partition(_MODEL_PREFIX)
        if is_model and not any(fnmatchcase(name, pattern) for pattern in caller().model_patterns):
            return _STATUS.SERVICE_UNKNOWN
        return self._states.get(service, _STATUS.SERVICE_UNKNOWN)

    async def _write(self, status: Any, context: Any) -> None:
        try:
            async with asyncio.timeout(self._settings.stalled_write_seconds):
                await context.write(_STATUS(status=status).SerializeToString())
        except TimeoutError:
            raise NotReadyError("the health sent was not read for too long; watch it again") from None
