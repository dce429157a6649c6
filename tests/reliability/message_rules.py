"""What a call must end with, by the fields of its request: each by its own rule, in the order in which they count.

Written from the .proto files, docs/serving.md and the Open Inference Protocol, not from the server's code.
"""

import base64
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from bgan.v1 import model_pb2, sampling_pb2, sampling_pb2_grpc

from .access import Access
from .wire import Method

Code = grpc.StatusCode
_END = 2**63 - 1
_RECEIVED_BYTES = 4 * 1024 * 1024
_MAX_LABELS = 65_536
_MAX_TOKEN = 1024
_MODEL_SERVICE = "bgan.v1.SamplingService"
_SERVICES = ("", _MODEL_SERVICE, "inference.GRPCInferenceService")
_UNKNOWN_PARAMETERS = {"shared_memory_region", "classification"}
_CONTENTS = {"FP32": "fp32_contents", "INT64": "int64_contents"}
_DTYPES = {"FP32": "<f4", "INT64": "<i8"}


@dataclass(frozen=True)
class Facts:
    """What a server said of itself before it was attacked."""

    served: Sequence[sampling_pb2.ServedModel]
    limits: sampling_pb2.Limits
    patterns: tuple[str, ...] = ("*",)
    """The names that the caller's token is good for."""
    moving: frozenset[str] = frozenset()
    """Models that change meanwhile, of which nothing is known but that they are there."""

    def versions(self, name: str) -> list[sampling_pb2.ServedModel]:
        """Those of a model; of the default one for no name."""
        if not name:
            name = next(each.model.name for each in self.served if each.is_default)
        return [each for each in self.served if each.model.name == name]


def facts_of(access: Access, **options) -> Facts:
    """Ask a running server."""
    with access.channel() as channel:
        stub = sampling_pb2_grpc.SamplingServiceStub(channel)
        listed = stub.ListModels(sampling_pb2.ListModelsRequest(), metadata=access.metadata)
    return Facts(tuple(listed.models), listed.limits, **options)


def expected(method: Method, messages: Sequence[bytes], facts: Facts) -> Code | None:
    """How a call with these messages must end; None: its model changes, and any good answer will do."""
    if method.request is None:
        return Code.UNIMPLEMENTED
    for message in messages if method.takes_stream else messages[:1]:
        if len(message) > max(facts.limits.max_message_bytes, _RECEIVED_BYTES):
            return Code.RESOURCE_EXHAUSTED
        try:
            request = GetMessageClass(method.request).FromString(message)
        except DecodeError:
            return Code.INVALID_ARGUMENT
        if getattr(request, _NAMES.get(method.path, ""), "") in facts.moving:
            return None
        for _, code, is_wrong in _RULES.get(method.path, ()):
            if is_wrong(request, facts):
                return code
    return Code.OK


def _known(name: str) -> tuple:
    """The rules of a field that names a model."""
    return (
        (name, Code.PERMISSION_DENIED, lambda request, facts: _is_denied(getattr(request, name), facts)),
        (name, Code.NOT_FOUND, lambda request, facts: not facts.versions(getattr(request, name))),
    )


def _is_denied(name, facts):
    (default,) = {each.model.name for each in facts.served if each.is_default}
    return not any(fnmatchcase(name or default, pattern) for pattern in facts.patterns)


def _fitting(request, facts):
    """The versions of a bgan request's model that have its number."""
    named = facts.versions(getattr(request, _NAMES[_path_of(request)]))
    return [each for each in named if request.version in (0, each.version)]


def _model(request, facts) -> sampling_pb2.ServedModel:
    return next(each for each in _fitting(request, facts) if request.revision in ("", each.revision))


def _path_of(request):
    return f"/bgan.v1.SamplingService/{type(request).__name__.removesuffix('Request')}"


def _is_other_revision(request, facts):
    return all(request.revision not in ("", each.revision) for each in _fitting(request, facts))


def _largest_batch(request, facts):
    """As many images as a message may have, or as many as fit into it."""
    model = _model(request, facts).model
    pixels = _pixels(model)
    image_bytes = math.ceil(pixels / 8) + 4 * pixels * request.include_probabilities + 5 * bool(model.classes)
    return min(facts.limits.max_batch_size, (facts.limits.max_message_bytes - 512) // image_bytes)


def _pixels(model):
    return math.prod((model.image_shape.channels, model.image_shape.height, model.image_shape.width))


def _has_wrong_labels(request, facts):
    classes = len(_model(request, facts).model.classes)
    return len(request.labels) > _MAX_LABELS or not all(0 <= label < classes for label in request.labels)


# Of the Open Inference Protocol: a version is a number, or a revision.


def _called(name: str, version: str, facts: Facts) -> sampling_pb2.ServedModel | None:
    for each in facts.versions(name):
        if version in ("", each.revision) or (_is_number(version) and int(version) in (0, each.version)):
            return each
    return None


def _is_number(version):
    return version.isdecimal() and len(version) <= 18


def _takes(model: model_pb2.Model) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The datatype and the shape of a row of each input."""
    shape = model.image_shape
    inputs: dict[str, tuple[str, tuple[int, ...]]] = {"latents": ("FP32", (model.latent_size,))}
    if model.binarization == model_pb2.BINARIZATION_BERNOULLI:
        inputs["uniforms"] = "FP32", (shape.channels, shape.height, shape.width)
    if model.classes:
        inputs["labels"] = "INT64", ()
    if model.inner_uniform_count:
        inputs["inner_uniforms"] = "FP32", (model.inner_uniform_count,)
    return inputs


def _asks_for_wrong_outputs(request, facts):
    names, gates = (
        [output.name for output in request.outputs],
        _called(request.model_name, request.model_version, facts).model.gates,
    )
    return (
        len(set(names)) < len(names)
        or not {"images", "probabilities", *(["gates"] if gates.count else [])} >= set(names)
        or any(_UNKNOWN_PARAMETERS & set(output.parameters) for output in request.outputs)
    )


def _has_wrong_inputs(request, facts):
    model = _called(request.model_name, request.model_version, facts).model
    takes, names = _takes(model), [tensor.name for tensor in request.inputs]
    raw = list(request.raw_input_contents) or [None] * len(names)
    if sorted(names) != sorted(takes) or len(raw) != len(names):
        return True
    batches = {tensor.shape[0] if tensor.shape else 0 for tensor in request.inputs}
    (batch, *others) = batches
    row_bytes = max(5 * _pixels(model) + model.gates.count, sum(4 * math.prod(row) for _, row in takes.values()))
    most = min(facts.limits.max_batch_size, (facts.limits.max_message_bytes - 1024) // row_bytes)
    return (
        bool(others)
        or not 1 <= batch <= most
        or any(
            _is_wrong_input(tensor, content, *takes[tensor.name], len(model.classes))
            for tensor, content in zip(request.inputs, raw, strict=True)
        )
    )


def _is_wrong_input(tensor, raw, datatype, row, classes):
    if (
        tensor.datatype != datatype
        or tuple(tensor.shape[1:]) != row
        or _UNKNOWN_PARAMETERS & set(tensor.parameters)
    ):
        return True
    fields = [field.name for field, _ in tensor.contents.ListFields()]
    if tensor.HasField("contents") if raw is not None else fields != [_CONTENTS[datatype]]:
        return True
    dtype = np.dtype(_DTYPES[datatype])
    if raw is None:
        values = np.array(getattr(tensor.contents, _CONTENTS[datatype]), dtype)
    elif len(raw) % dtype.itemsize:
        return True
    else:
        values = np.frombuffer(raw, dtype)
    if len(values) != math.prod(tensor.shape):
        return True
    if tensor.name == "latents":
        return not np.isfinite(values).all()
    return not ((values >= 0) & (values < (classes if tensor.name == "labels" else 1))).all()


def _has_no_service(request, facts):
    models = {f"{_MODEL_SERVICE}/{each.model.name}" for each in facts.served}
    return request.service not in {*_SERVICES, *models}


def _is_no_token(token):
    """A server may have given one for any model, so one is told from other text by its form alone."""
    try:
        text = base64.urlsafe_b64decode(token).decode()
    except ValueError:
        return True
    return bool(token) and (len(token) > _MAX_TOKEN or not re.fullmatch(r"(?s)\d+\n.*", text))


_BGAN_MODEL = (
    ("version", Code.NOT_FOUND, lambda request, facts: not _fitting(request, facts)),
    ("revision", Code.FAILED_PRECONDITION, _is_other_revision),
)
_NAMES = {
    "/bgan.v1.SamplingService/SampleBinaryImages": "model",
    "/bgan.v1.SamplingService/GetModel": "name",
    "/inference.GRPCInferenceService/ModelReady": "name",
    "/inference.GRPCInferenceService/ModelMetadata": "name",
    "/inference.GRPCInferenceService/ModelInfer": "model_name",
}
"""The field that names a model, by method."""
_RULES: dict[str, tuple[tuple[str, Code, Callable], ...]] = {
    "/bgan.v1.SamplingService/SampleBinaryImages": (
        *_known("model"),
        *_BGAN_MODEL,
        (
            "image_count",
            Code.INVALID_ARGUMENT,
            lambda request, facts: not 1 <= request.image_count <= facts.limits.max_image_count,
        ),
        ("seed", Code.INVALID_ARGUMENT, lambda request, facts: request.seed < 0),
        (
            "first_index",
            Code.INVALID_ARGUMENT,
            lambda request, facts: not 0 <= request.first_index <= _END - request.image_count,
        ),
        (
            "batch_size",
            Code.INVALID_ARGUMENT,
            lambda request, facts: not 0 <= request.batch_size <= _largest_batch(request, facts),
        ),
        ("labels", Code.INVALID_ARGUMENT, _has_wrong_labels),
    ),
    "/bgan.v1.SamplingService/GetModel": (*_known("name"), *_BGAN_MODEL),
    "/bgan.v1.SamplingService/ListModels": (
        ("page_size", Code.INVALID_ARGUMENT, lambda request, facts: request.page_size < 0),
        ("page_token", Code.INVALID_ARGUMENT, lambda request, facts: _is_no_token(request.page_token)),
    ),
    **{
        f"/inference.GRPCInferenceService/{method}": (
            *_known("name"),
            ("version", Code.NOT_FOUND, lambda request, facts: not _called(request.name, request.version, facts)),
        )
        for method in ("ModelReady", "ModelMetadata")
    },
    "/inference.GRPCInferenceService/ModelInfer": (
        *_known("model_name"),
        (
            "model_version",
            Code.NOT_FOUND,
            lambda request, facts: not _called(request.model_name, request.model_version, facts),
        ),
        ("outputs", Code.INVALID_ARGUMENT, _asks_for_wrong_outputs),
        ("inputs", Code.INVALID_ARGUMENT, _has_wrong_inputs),
    ),
    "/grpc.health.v1.Health/Check": (("service", Code.NOT_FOUND, _has_no_service),),
    "/grpc.health.v1.Health/List": (("all", Code.UNIMPLEMENTED, lambda request, facts: True),),
}
"""(field, code, whether it is wrong) of each method, the first one that is wrong decides."""
