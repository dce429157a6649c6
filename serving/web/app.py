"""The addresses of the HTTP port, and which method answers each."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from bgan.v1 import sampling_pb2 as pb

from ..config.gallery import GALLERY, RUNTIME, lack_of_runtime
from ..errors import InvalidRequestError, NotAllowedError, StartError, foreign
from ..rpc.context import ServiceContext
from ..rpc.guard import CallGuard
from ..rpc.open_inference import OpenInferenceServicer
from ..rpc.sampling import SamplingServicer
from ..security.auth import caller
from .http_call import Endpoint, HttpCall
from .images import DESCRIBING, Images, read_images_request
from .inference import HEADER_LENGTH, Inference
from .openapi import openapi_json
from .pages import Pages

_SHOWN = (*DESCRIBING, "etag", "content-range", "retry-after", "x-request-id", HEADER_LENGTH)
_PLAIN = {"content-type": "text/plain", "cache-control": "no-store"}
_MAX_DIGITS = 9  # of a number that is an int32
_Method = Callable[[Any, Any], Awaitable[Any]]


class _Routes:
    """Collects routes, all of whose methods are guarded."""

    def __init__(self, guard: CallGuard) -> None:
        self.all: list[Route] = []
        self._guard = guard

    def add(
        self,
        path: str,
        method: _Method,
        read: Callable[[HttpCall], Any] = lambda call: call,
        *,
        verb: str = "GET",
        is_open: bool = False,
    ) -> None:
        self.all.append(Route(path, Endpoint(self._guard, (verb, path), method, read, is_open=is_open)))


def make_app(
    context: ServiceContext,
    guard: CallGuard,
    sampling: SamplingServicer,
    inference: OpenInferenceServicer,
    health: Any,
    pages: Path = GALLERY,
) -> Starlette:
    """The ASGI application. `health`: the servicer of grpc.health.v1. pages: a folder of files for other paths.

    Raises StartError if the setting `http_runtime` names a folder without onnxruntime-web.
    """
    images = Images(context, sampling)
    routes = _Routes(guard)
    is_open = context.settings.health == "open"
    routes.add("/v1/models", _as_json(sampling.ListModels), _read_page)
    routes.add("/v1/models/{name}", _as_json(sampling.GetModel), _read_model)
    routes.add("/v1/models/{name}/images", images.of_model, read_images_request)
    routes.add("/v1/revisions/{revision}/images", images.of_revision, read_images_request)
    routes.add("/v1/revisions/{revision}/file", images.file_of_revision, _no_fields(object))
    routes.add("/healthz", _alive, is_open=is_open)
    routes.add("/readyz", _readiness(health), is_open=is_open)
    routes.add("/metrics", _metrics(context))
    routes.add("/openapi.json", _document, is_open=True)
    _add_inference(routes, Inference(context, inference), is_open=is_open)
    files = Pages(_folders(pages, context.settings.http_runtime), context.settings.stalled_write_seconds)
    app = Starlette(routes=routes.all, middleware=_cross_origin(context.settings.http_origins))
    app.router.default = Endpoint(guard, ("GET", "/*"), files.show, is_open=True)
    app.router.redirect_slashes = False  # by the host that the request names
    return app


def _folders(pages: Path, runtime: Path | None) -> dict[str, Path]:
    """Which folders' files are shown where."""
    if runtime is None:
        return {"": pages}
    if lack := lack_of_runtime(runtime, "--http-runtime"):
        raise StartError(lack)
    return {"": pages, f"/{RUNTIME}": runtime}


def _add_inference(routes: _Routes, inference: Inference, *, is_open: bool) -> None:
    """The addresses of the Open Inference Protocol."""
    routes.add("/v2", inference.server)
    routes.add("/v2/health/live", inference.live, is_open=is_open)
    routes.add("/v2/health/ready", inference.ready, is_open=is_open)
    for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes.add(model, inference.model)
        routes.add(f"{model}/ready", inference.model_ready)
        routes.add(f"{model}/infer", inference.infer, inference.read, verb="POST")


def _cross_origin(origins: str | None) -> list[Middleware]:
    """Lets pages of other servers read the answers, where a setting names these servers."""
    if origins is None:
        return []
    conditions = "range", "if-range", "if-none-match"
    headers = ["authorization", "content-type", "x-request-id", *conditions, HEADER_LENGTH]
    cors: Any = Middleware(
        CORSMiddleware,
        allow_origins=[_as_browsers_say(origin) for origin in origins.split(",")],
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=headers,
        expose_headers=_SHOWN,
    )
    return [cors]


def _as_browsers_say(origin: str) -> str:
    """An origin in small letters, without the port that its scheme has anyway."""
    scheme, _, host = origin.lower().partition("://")
    return f"{scheme}://{host.removesuffix(':80' if scheme == 'http' else ':443')}"


def _as_json(method: _Method) -> _Method:
    """A method of a service, whose answer is shown as proto3 JSON with the names of the protos."""

    async def call(request: Any, context: HttpCall) -> bytes:
        response: Message = await method(request, context)
        text = MessageToJson(response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        return f"{text}\n".encode()

    return call


def _no_fields(request: Callable[[], Any]) -> Callable[[HttpCall], Any]:
    def read(call: HttpCall) -> Any:
        _refuse_fields(call)
        return request()

    return read


def _read_page(call: HttpCall) -> pb.ListModelsRequest:
    _refuse_fields(call, "page_size", "page_token")
    query = call.query()
    size, token = (query.get(name, [default])[-1] for name, default in (("page_size", "0"), ("page_token", "")))
    if not (size.isdecimal() and len(size) <= _MAX_DIGITS):
        text = f"is '{foreign(size)}'; it is a whole number of at most {_MAX_DIGITS} digits"
        raise InvalidRequestError({"page_size": text})
    return pb.ListModelsRequest(page_size=int(size), page_token=token)


def _read_model(call: HttpCall) -> pb.GetModelRequest:
    _refuse_fields(call)
    return pb.GetModelRequest(name=call.path["name"])


def _refuse_fields(call: HttpCall, *known: str) -> None:
    """Raises InvalidRequestError where the query has others."""
    others = [name for name in call.query() if name not in known]
    if others:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise InvalidRequestError({foreign(name): f"is no field of this address; {has}" for name in others})


async def _alive(_: HttpCall, call: HttpCall) -> bytes:
    call.reply.headers = dict(_PLAIN)
    return b"ok\n"


def _readiness(health: Any) -> _Method:
    async def ready(_: HttpCall, call: HttpCall) -> bytes:
        response = await health.Check(health_pb2.HealthCheckRequest(), call)
        is_serving = response.status == health_pb2.HealthCheckResponse.SERVING
        call.reply.status = 200 if is_serving else 503
        call.reply.headers = dict(_PLAIN)
        return b"ok\n" if is_serving else b"not serving\n"

    return ready


def _metrics(context: ServiceContext) -> _Method:
    async def show(_: HttpCall, call: HttpCall) -> bytes:
        if caller().model_patterns != ("*",):
            raise NotAllowedError("metrics are of all models, and this token does not cover all")
        call.reply.headers = {**_PLAIN, "content-type": "text/plain; version=0.0.4; charset=utf-8"}
        return await asyncio.to_thread(context.metrics.scrape)  # it reads a file of each worker

    return show


async def _document(_: HttpCall, call: HttpCall) -> bytes:
    """What there is, to everyone: it is the same for all servers."""
    return openapi_json()
