"""As much of the ONNX format as has to be read before onnxruntime does.

onnxruntime does not bring the format's messages, and the package onnx is large; unknown fields are passed over.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "bgan.onnx_format"
# Names are bytes: a file may hold anything there. Numbers are those of onnx.proto.
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
OnnxModel: Any = message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.Model"))
"""The message of a model file."""
