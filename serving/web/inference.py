"""The Open Inference Protocol over HTTP, binary tensors included: the methods of the gRPC service, in JSON."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bgan.inference import open_inference_grpc_pb2 as oip

from ..errors import InvalidRequestError, foreign
from ..models.manifest import output_specs
from ..rpc.admission import who_calls
from ..rpc.arrivals import max_request_bytes
from ..rpc.context import ServiceContext
from ..rpc.oip_tensors import row_bytes
from ..rpc.open_inference import OpenInferenceServicer
from ..rpc.pool import in_one_step
from .http_call import HttpCall

HEADER_LENGTH = "inference-header-content-length"
EXTENSIONS = ("binary_tensor_data",)
_FEW_BYTES = 64 * 1024  # that are parsed on the event loop
_JSON_BYTES = 21  # the most that a number takes in JSON, with what separates it
_MAX_TENSORS = 16
_MAX_DIMENSIONS = 8
_KINDS = {"FP32": ("<f4", "iuf", "numbers"), "INT64": ("<i8", "iu", "whole numbers")}
_NUMPY = {"FP32": "<f4", "UINT8": "u1"}  # of the outputs
_Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
T = TypeVar("T")


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Parameters(_Strict):
    model_config = ConfigDict(extra="allow")

    binary_data: bool | None = None
    binary_data_size: _Int64 | None = None
    binary_data_output: bool = False


class _Output(_Strict):
    name: str
    parameters: _Parameters = _Parameters()


class _Input(_Output):
    datatype: str
    shape: list[_Int64] = Field(max_length=_MAX_DIMENSIONS)
    data: Any = None


class _Body(_Strict):
    """The JSON of a request."""

    id: str = ""
    inputs: list[_Input] = Field([], max_length=_MAX_TENSORS)
    outputs: list[_Output] = Field([], max_length=_MAX_TENSORS)
    parameters: _Parameters = _Parameters()


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request for one inference."""

    message: oip.ModelInferRequest
    binary: dict[str, bool]
    """The outputs that are asked for by name, and whether as bytes."""
    is_binary: bool
    """Whether others are wanted as bytes."""

    def wants_bytes(self, output: str) -> bool:
        """Whether an output is wanted as bytes."""
        return self.binary.get(output, self.is_binary)


class Inference:
    """The protocol's methods as routes call them."""

    def __init__(self, context: ServiceContext, servicer: OpenInferenceServicer) -> None:
        self._context = context
        self._servicer = servicer
        self._most = max_request_bytes(context.settings)

    async def live(self, _: HttpCall, call: HttpCall) -> bytes:
        """Whether the server answers at all."""
        return _as_json(await self._servicer.ServerLive(oip.ServerLiveRequest(), call), "live")

    async def ready(self, _: HttpCall, call: HttpCall) -> bytes:
        """Whether the models are loaded."""
        response = await self._servicer.ServerReady(oip.ServerReadyRequest(), call)
        call.reply.status = 200 if response.ready else 503
        return _as_json(response, "ready")

    async def server(self, _: HttpCall, call: HttpCall) -> bytes:
        """Name, version and extensions of the server."""
        response = await self._servicer.ServerMetadata(oip.ServerMetadataRequest(), call)
        return _dumps({"name": response.name, "version": response.version, "extensions": EXTENSIONS})

    async def model_ready(self, _: HttpCall, call: HttpCall) -> bytes:
        """Whether a model is loaded."""
        request = oip.ModelReadyRequest(name=call.path["name"], version=call.path.get("version", ""))
        response = await self._servicer.ModelReady(request, call)
        call.reply.status = 200 if response.ready else 503
        return _dumps({"name": request.name, "ready": response.ready})

    async def model(self, _: HttpCall, call: HttpCall) -> bytes:
        """The tensors of one model."""
        request = oip.ModelMetadataRequest(name=call.path["name"], version=call.path.get("version", ""))
        response = await self._servicer.ModelMetadata(request, call)
        tensors = {
            kind: [{"name": each.name, "datatype": each.datatype, "shape": list(each.shape)} for each in specs]
            for kind, specs in (("inputs", response.inputs), ("outputs", response.outputs))
        }
        about = {"name": response.name, "versions": list(response.versions), "platform": response.platform}
        return _dumps({**about, **tensors})

    async def read(self, call: HttpCall) -> InferRequest:
        """The request of an inference. Raises InvalidRequestError."""
        if (encoding := call.header("content-encoding") or "identity") != "identity":
            text = f"is '{foreign(encoding)}'; send the body as it is"
            raise call.refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content-encoding", text)
        body = await _read_body(call, self._most)
        return await self._compute(call, len(body), _parse, body, call)

    async def infer(self, request: InferRequest, call: HttpCall) -> bytes:
        """Run one batch."""
        self._check_size(request)
        response = oip.ModelInferResponse.FromString(await self._servicer.ModelInfer(request.message, call))
        size = sum(map(len, response.raw_output_contents))
        header, tensors = await self._compute(call, size, _render, response, request)
        if tensors:
            call.reply.headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(header))}
        return header + tensors

    def _check_size(self, request: InferRequest) -> None:
        """Raises InvalidRequestError where numbers in JSON would take more than an answer may."""
        found = self._context.models.visible().versions(request.message.model_name)
        rows = max((tensor.shape[0] for tensor in request.message.inputs if tensor.shape), default=0)
        if not found:
            return  # an error that the method itself tells
        specs = output_specs(found[0].manifest)
        wanted = request.binary or {spec.name: request.is_binary for spec in specs}
        as_text = [spec for spec in specs if wanted.get(spec.name) is False]
        numbers = sum(row_bytes(spec) // np.dtype(spec.dtype).itemsize for spec in as_text)
        if numbers * rows * _JSON_BYTES > (most := self._context.settings.max_message_bytes):
            text = f"of {rows} rows may take more than {most} bytes as JSON; ask for binary_data or for less"
            raise InvalidRequestError({"outputs": text})

    async def _compute(self, call: HttpCall, size: int, function: Callable[..., T], *arguments: object) -> T:
        """What a function returns; what takes long is done in its caller's turn."""
        if size <= _FEW_BYTES:
            return function(*arguments)
        return await self._context.pool.run(who_calls(call.peer()), in_one_step(function, *arguments))


async def _read_body(call: HttpCall, most: int) -> bytes:
    """Raises InvalidRequestError if it has more bytes than it may."""
    body, is_whole = bytearray(), False
    length = int((call.header("content-length") or "0")[:19])
    while max(length, len(body)) <= most:
        if is_whole:
            return bytes(body)
        message = await call.receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        body += message.get("body", b"")
        is_whole = not message.get("more_body")
    text = f"is too long; send at most {most} bytes"
    raise call.refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body", text)


def _parse(body: bytes, call: HttpCall) -> InferRequest:
    header, tensors = _split(body, call.header(HEADER_LENGTH))
    try:
        content = _Body.model_validate_json(header)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidRequestError(
            {_place(each["loc"]): each["msg"].removeprefix("Input ") for each in found}
        ) from None
    message = oip.ModelInferRequest(
        model_name=call.path["name"], model_version=call.path.get("version", ""), id=content.id
    )
    rest = memoryview(tensors)
    for number, each in enumerate(content.inputs):
        tensor = message.inputs.add(name=each.name, datatype=each.datatype, shape=each.shape)
        place, size = f"inputs[{number}]", each.parameters.binary_data_size
        if size is None:
            message.raw_input_contents.append(_values(each, f"{place}.data"))
        elif not 0 <= size <= len(rest):
            raise InvalidRequestError({place: f"has {size} bytes after the JSON, where {len(rest)} are left"})
        else:
            message.raw_input_contents.append(bytes(rest[:size]))
            rest = rest[size:]
        _keep_parameters(each, tensor)
    if rest:
        raise InvalidRequestError({"request": f"has {len(rest)} bytes after the JSON that no input names"})
    is_binary = content.parameters.binary_data_output
    for output in content.outputs:
        _keep_parameters(output, message.outputs.add(name=output.name))
    wants = {each.name: each.parameters.binary_data for each in content.outputs}
    return InferRequest(
        message, {name: is_binary if each is None else each for name, each in wants.items()}, is_binary
    )


def _place(path: tuple[int | str, ...]) -> str:
    """Where in the JSON something stands."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "request"


def _split(body: bytes, length: str | None) -> tuple[bytes, bytes]:
    """The JSON of a body, and the tensors after it."""
    if length is None:
        return body, b""
    if not length.isdecimal() or len(length) > 18 or int(length) > len(body):
        raise InvalidRequestError({HEADER_LENGTH: f"is '{foreign(length)}', where the body has {len(body)} bytes"})
    return body[: int(length)], body[int(length) :]


def _keep_parameters(node: _Output, tensor: Any) -> None:
    """Those that would change what a tensor means, which the method refuses."""
    for name in node.parameters.model_extra or ():
        tensor.parameters[name].bool_param = True


def _values(tensor: _Input, place: str) -> bytes:
    """The bytes of a tensor's values, which may be nested."""
    if tensor.datatype not in _KINDS:
        return b""  # the method says which is wanted
    descr, kinds, words = _KINDS[tensor.datatype]
    try:
        values = np.array(tensor.data)
    except (ValueError, OverflowError):  # not all of one depth
        raise InvalidRequestError({place: "is nested unevenly"}) from None
    if values.size and values.dtype.kind not in kinds:
        raise InvalidRequestError({place: f"holds something else than {words}"})
    with np.errstate(over="ignore"):  # infinity is refused by the method
        return values.astype(descr).tobytes()


def _render(response: oip.ModelInferResponse, request: InferRequest) -> tuple[bytes, bytes]:
    outputs, tensors = [], []
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        about: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if request.wants_bytes(output.name):
            about["parameters"] = {"binary_data_size": len(raw)}
            tensors.append(raw)
        else:
            about["data"] = np.frombuffer(raw, _NUMPY[output.datatype]).tolist()
        outputs.append(about)
    about = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        about["id"] = response.id
    return _dumps({**about, "outputs": outputs}), b"".join(tensors)


def _as_json(response: Any, name: str) -> bytes:
    return _dumps({name: getattr(response, name)})


def _dumps(content: Any) -> bytes:
    return json.dumps(content).encode()
