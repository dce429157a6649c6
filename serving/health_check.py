"""Asks a server for its health, or that of one model, as `grpc.health.v1` has it."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bgan.v1 import sampling_pb2

from .config import ServerSettings
from .errors import NotServingError
from .port import own_host

_SERVICE = sampling_pb2.DESCRIPTOR.services_by_name["SamplingService"].full_name
# A probe asks the server itself, whatever proxy the environment names.
_OPTIONS = [("grpc.enable_http_proxy", 0)]


def model_service(name: str) -> str:
    """What a model is called where its health is asked for."""
    return f"{_SERVICE}/{name}"


def own_address(settings: ServerSettings) -> str:
    """Where a server of these settings answers on its own machine."""
    return f"{own_host(settings.host)}:{settings.port}"


def check_health(target: str, model: str | None, *, timeout_seconds: float) -> None:
    """Return if the server at `target`, or its model, is SERVING. Raises NotServingError, which says why not."""
    what = "the server" if model is None else f"model {model!r}"
    request = health_pb2.HealthCheckRequest(service="" if model is None else model_service(model))
    with grpc.insecure_channel(target, options=_OPTIONS) as channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)  # its stubs do not name its methods
            answer = stub.Check(request, timeout=timeout_seconds)
        except grpc.RpcError as error:
            raise NotServingError(f"{target}: {_reason(error, what)}") from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise NotServingError(f"{target}: {what} is {status}")


def _reason(error: grpc.RpcError, what: str) -> str:
    assert isinstance(error, grpc.Call)
    if error.code() == grpc.StatusCode.NOT_FOUND:
        return f"{what} is not known; bgan models lists what there is"
    return f"no answer about {what}: {error.code().name}: {error.details()}"
