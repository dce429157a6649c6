"""The Open Inference Protocol over HTTP, binary tensors included: the methods of the gRPC service, in JSON."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from open_inference.grpc import protocol as oip

from ..errors import InvalidRequestError, foreign
from ..models.manifest import output_specs
from ..rpc.admission import who_calls
from ..rpc.context import ServiceContext
from ..rpc.oip_tensors import row_bytes
from ..rpc.open_inference import OpenInferenceServicer
from ..rpc.pool import in_one_step
from .http_call import HttpCall

HEADER_LENGTH = "inference-header-content-length"
EXTENSIONS = ("binary_tensor_data",)
_BYTES = 4 * 1024 * 1024  # of a body, at least; as of gRPC's messages
_FEW_BYTES = 64 * 1024  # that are parsed on the event loop
_JSON_BYTES = 21  # the most that a number takes in JSON, with what separates it
_MAX_TENSORS = 16
_MAX_DIMENSIONS = 8
_KINDS = {"FP32": ("<f4", "iuf", "numbers"), "INT64": ("<i8", "iu", "whole numbers")}
_INT64 = range(-(2**63), 2**63)
_NUMPY = {"FP32": "<f4", "UINT8": "u1"}  # of the outputs
T = TypeVar("T")


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
        self._most = max(context.settings.max_message_bytes, _BYTES)

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
        if (encoding := call.header("content-encoding")) not in (None, "identity"):
            raise InvalidRequestError(
                {"content-encoding": f"is '{foreign(encoding or '')}'; send the body as it is"}
            )
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
    too_long = InvalidRequestError({"body": f"is too long; send at most {most} bytes"})
    length = call.header("content-length") or "0"
    if len(length) > 18 or int(length) > most:
        raise too_long
    body = bytearray()
    while True:
        message = await call.receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        body += message.get("body", b"")
        if len(body) > most:
            raise too_long
        if not message.get("more_body"):
            return bytes(body)


def _parse(body: bytes, call: HttpCall) -> InferRequest:
    header, tensors = _split(body, call.header(HEADER_LENGTH))
    try:
        content = json.loads(header)
    except (ValueError, RecursionError):  # UnicodeDecodeError is one, and so are numbers that are too long
        raise InvalidRequestError({"request": "is no JSON; send an object with the field inputs"}) from None
    root = _Node(content, "request")
    message = oip.ModelInferRequest(
        model_name=call.path["name"], model_version=call.path.get("version", ""), id=root.text("id", "")
    )
    rest = memoryview(tensors)
    for node in root.items("inputs"):
        size = node.node("parameters").number("binary_data_size", None)
        tensor = message.inputs.add(
            name=node.text("name"), datatype=node.text("datatype"), shape=node.numbers("shape")
        )
        if size is None:
            message.raw_input_contents.append(node.values("data", tensor.datatype))
        elif not 0 <= size <= len(rest):
            raise InvalidRequestError({node.path: f"has {size} bytes after the JSON, where {len(rest)} are left"})
        else:
            message.raw_input_contents.append(bytes(rest[:size]))
            rest = rest[size:]
        _keep_parameters(node, tensor)
    if rest:
        raise InvalidRequestError({"request": f"has {len(rest)} bytes after the JSON that no input names"})
    is_binary = root.node("parameters").flag("binary_data_output", False)
    binary: dict[str, bool] = {}
    for node in root.items("outputs"):
        output = message.outputs.add(name=node.text("name"))
        binary[output.name] = node.node("parameters").flag("binary_data", is_binary)
        _keep_parameters(node, output)
    return InferRequest(message, binary, is_binary)


def _split(body: bytes, length: str | None) -> tuple[bytes, bytes]:
    """The JSON of a body, and the tensors after it."""
    if length is None:
        return body, b""
    if not length.isdecimal() or len(length) > 18 or int(length) > len(body):
        raise InvalidRequestError({HEADER_LENGTH: f"is '{foreign(length)}', where the body has {len(body)} bytes"})
    return body[: int(length)], body[int(length) :]


def _keep_parameters(node: "_Node", tensor: Any) -> None:
    """Those that would change what a tensor means, which the method refuses."""
    for name in node.node("parameters").names():
        if name not in ("binary_data", "binary_data_size"):
            tensor.parameters[name].bool_param = True


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


class _Node:
    """A value of a JSON document, and where it stands: whatever is asked of it that it is not is an error."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise InvalidRequestError({path: "is no object"})
        self._value = value
        self.path = path

    def names(self) -> Iterator[str]:
        return iter(self._value)

    def node(self, name: str) -> "_Node":
        """An object in it; an empty one where there is none."""
        return _Node(self._value.get(name, {}), self._at(name))

    def items(self, name: str) -> list["_Node"]:
        """The objects of a list in it; none where there is no list."""
        found = self._get(name, [])
        if not isinstance(found, list) or len(found) > _MAX_TENSORS:
            raise self._error(name, f"is no list of at most {_MAX_TENSORS} objects")
        return [_Node(each, f"{self._at(name)}[{number}]") for number, each in enumerate(found)]

    def text(self, name: str, default: Any = ...) -> str:
        found = self._get(name, default)
        if not isinstance(found, str) or not _is_unicode(found):
            raise self._error(name, "is no text")
        return found

    def flag(self, name: str, default: bool) -> bool:
        found = self._get(name, default)
        if not isinstance(found, bool):
            raise self._error(name, "is neither true nor false")
        return found

    def number(self, name: str, default: Any = ...) -> Any:
        found = self._get(name, default)
        if found is not default and not _is_int64(found):
            raise self._error(name, "is no whole number of 64 bits")
        return found

    def numbers(self, name: str) -> list[int]:
        found = self._get(name, ...)
        if not isinstance(found, list) or len(found) > _MAX_DIMENSIONS or not all(map(_is_int64, found)):
            raise self._error(name, f"is no list of at most {_MAX_DIMENSIONS} whole numbers")
        return found

    def values(self, name: str, datatype: str) -> bytes:
        """The bytes of a tensor's values, which may be nested."""
        if datatype not in _KINDS:
            return b""  # the method says which is wanted
        descr, kinds, words = _KINDS[datatype]
        try:
            values = np.array(self._get(name, ...))
        except (ValueError, OverflowError):  # not all of one depth
            raise self._error(name, "is nested unevenly") from None
        if values.size and values.dtype.kind not in kinds:
            raise self._error(name, f"holds something else than {words}")
        with np.errstate(over="ignore"):  # infinity is refused by the method
            return values.astype(descr).tobytes()

    def _get(self, name: str, default: Any) -> Any:
        found = self._value.get(name, default)
        if found is ...:
            raise self._error(name, "is missing")
        return found

    def _at(self, name: str) -> str:
        return name if self.path == "request" else f"{self.path}.{name}"

    def _error(self, name: str, text: str) -> InvalidRequestError:
        return InvalidRequestError({self._at(name): text})


def _is_int64(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in _INT64


def _is_unicode(text: str) -> bool:
    """Whether a message can hold it: JSON may have halves of characters."""
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


def _as_json(response: Any, name: str) -> bytes:
    return _dumps({name: getattr(response, name)})


def _dumps(content: Any) -> bytes:
    return json.dumps(content).encode()
