"""Model files, read and checked before onnxruntime sees them: it would follow them wherever they lead.

What is refused: files that are too large, other opsets, operators that are not ONNX's own, functions, data in
other files, and what no generator needs and nothing bounds or seeds: loops, sparse tensors, random operators.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from ..errors import ModelFileError

OPSETS = range(13, 27)
"""The versions of ONNX's operators that were tested."""
_OWN_DOMAINS = (b"", b"ai.onnx")
_LOOPS = (b"Loop", b"Scan")
_RANDOM = b"Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split()
_VALUES_A_BYTE = 4  # of the smallest type there is
_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "bgan.onnx_format"
# What is checked of the format, with onnx.proto's numbers; names are bytes, since a file may hold anything there.
# onnxruntime does not bring these messages, and the package onnx is large.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {
        "graph": (7, "Graph"),
        "opset_import": (8, "*OperatorSet"),
        "training_info": (20, "*Anything"),
        "functions": (25, "*Anything"),
    },
    "OperatorSet": {"domain": (1, "bytes"), "version": (2, "int64")},
    "Graph": {"node": (1, "*Node"), "initializer": (5, "*Tensor"), "sparse_initializer": (15, "*Anything")},
    "Node": {"op_type": (4, "bytes"), "attribute": (5, "*Attribute"), "domain": (7, "bytes")},
    "Attribute": {
        "t": (5, "Tensor"),
        "g": (6, "Graph"),
        "tensors": (10, "*Tensor"),
        "graphs": (11, "*Graph"),
        "sparse_tensor": (22, "Anything"),
        "sparse_tensors": (23, "*Anything"),
    },
    "Tensor": {"dims": (1, "*int64"), "external_data": (13, "*Anything"), "data_location": (14, "int64")},
    "Anything": {},
}
_SCALARS = {"bytes": _Field.TYPE_BYTES, "int64": _Field.TYPE_INT64}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="onnx_format.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            field = message.field.add(name=field_name, number=number)
            field.label = _Field.LABEL_REPEATED if kind.startswith("*") else _Field.LABEL_OPTIONAL
            type_name = kind.removeprefix("*")
            if type_name in _SCALARS:
                field.type = _SCALARS[type_name]
            else:
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{type_name}"
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())
_OnnxModel: Any = message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.Model"))


def read_model_file(path: Path, max_bytes: int) -> bytes:
    """The content of a file. Raises ModelFileError, with the file's name, if it cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror})") from error
    if len(content) > max_bytes:
        raise ModelFileError(f"{path} is larger than {max_bytes} bytes; --max-model-bytes allows more")
    return content


def check_model(content: bytes) -> None:
    """Raises ModelFileError, without the file's name, if a file's content holds what is not to be loaded."""
    if content[4:8] == b"ORTM":  # another format, which onnxruntime takes for a model as well
        raise ModelFileError("is in onnxruntime's own format; write an ONNX file")
    try:
        model = _OnnxModel.FromString(content)
    except DecodeError as error:
        raise ModelFileError("is no ONNX model", detail=str(error)) from error
    if not model.HasField("graph"):
        raise ModelFileError("is no ONNX model: it has no graph")
    _check_opset(model)
    if model.functions or model.training_info:
        what = "functions of its own" if model.functions else "training information"
        raise ModelFileError(f"has {what}; export it without")
    for graph in _graphs(model.graph):
        if graph.sparse_initializer:
            raise ModelFileError("has sparse initializers; export it with dense ones")
        for node in graph.node:
            _check_node(node)
        for tensor in _tensors(graph):
            _check_tensor(tensor, len(content))


def _check_opset(model: Any) -> None:
    versions = [each.version for each in model.opset_import if each.domain in _OWN_DOMAINS]
    if not versions or not all(version in OPSETS for version in versions):
        found = ", ".join(map(str, versions)) or "none"
        raise ModelFileError(f"is of the opset {found}; export it with one from {OPSETS[0]} to {OPSETS[-1]}")


def _check_node(node: Any) -> None:
    name = _shown(node.op_type)
    if node.domain not in _OWN_DOMAINS:
        raise ModelFileError(f"uses the operator {name} of {_shown(node.domain)}; only ONNX's own are run")
    if node.op_type in _LOOPS:
        raise ModelFileError(f"uses the operator {name}; loops are not run, since nothing bounds them")
    if node.op_type in _RANDOM:
        raise ModelFileError(
            f"uses the operator {name}; noise comes in by the inputs alone, so that a seed settles it"
        )
    if any(attribute.HasField("sparse_tensor") or attribute.sparse_tensors for attribute in node.attribute):
        raise ModelFileError(f"has a sparse tensor in the operator {name}; export it with a dense one")


def _check_tensor(tensor: Any, file_bytes: int) -> None:
    if tensor.data_location or tensor.external_data:
        raise ModelFileError("keeps data in other files; export it as one file")
    if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) > _VALUES_A_BYTE * file_bytes:
        raise ModelFileError(f"has a tensor of the shape {list(tensor.dims)}, for which it holds too little data")


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph and those inside its operators. Messages nest 100 deep at most, or they are not read."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _tensors(graph: Any) -> Iterator[Any]:
    """The tensors of a graph: its weights, and the constants in its operators."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _shown(name: bytes) -> str:
    """A name from a file, for people: short, printable, on one line."""
    return repr(name[:64].decode(errors="replace"))
