"""Model files, read and checked before onnxruntime sees them: it would follow them wherever they lead.

Only what is known to be harmless is let in: a file of a bounded size, of a tested opset, made of the operators and
attributes below, with all of its data inside. Nothing among them is random, loops, or holds another graph. What
was tried of a model holds for all of its images: `size_check` says why.
"""

import math
import os
import stat
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from ..errors import ModelFileError
from .manifest import MANIFEST_KEY
from .size_check import check_sizes, quoted

OPSETS = range(13, 27)
"""The versions of ONNX's operators that were tested."""
_OWN_DOMAINS = (b"", b"ai.onnx")
OPERATORS = frozenset(
    """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast CastLike Ceil Celu Clip Concat Constant
    ConstantOfShape Conv ConvInteger ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu
    Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool
    Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul MatMulInteger Max MaxPool Mean Min Mish
    Mod Mul Neg NonZero Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization
    Range Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu
    Reshape Resize Round ScatterND Selu Shape Sigmoid Sign Sin Size Slice Softmax Softplus Softsign SpaceToDepth
    Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile Transpose Trilu Unsqueeze Where Xor
    """.split()  # noqa: SIM905 - a list literal takes a line for each
)
"""ONNX's operators that a model may be made of: what `bgan export` writes, and what other feed-forward generators
have."""
ATTRIBUTES = frozenset(
    """
    allowzero alpha antialias approximate auto_pad axes axis batch_dims beta block_size blocksize ceil_mode
    coordinate_transformation_mode count_include_pad cubic_coeff_a dilations end epsilon equation
    exclude_outside exclusive extrapolation_value fmod gamma group keep_aspect_ratio_policy keepdims kernel_shape
    mode momentum nearest_mode noop_with_empty_axes num_groups num_outputs output_dtype output_padding output_shape
    pads perm precision reduction reverse round_mode saturate select_last_index start stash_type storage_order
    strides to training_mode transA transB upper value value_float value_floats value_int value_ints
    """.split()  # noqa: SIM905
)
"""The attributes that they may have; `training_mode` must be 0."""
_REDUCTIONS = (b"", b"none", b"add")
_MAX_SHOWN = 5
_MAX_NODES = 10_000
_MAX_TENSORS = 10_000
_MAX_DIMENSIONS = 8
_MAX_MANIFEST_BYTES = 65_536  # with it, a list of dozens of models is still what any gRPC client takes
_VALUES_A_BYTE = 4  # of the smallest type there is
_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "bgan.onnx_format"
# What is checked of the format, with onnx.proto's numbers; names are bytes, since a file may hold anything there.
# onnxruntime does not bring these messages, and the package onnx is large.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {
        "graph": (7, "Graph"),
        "opset_import": (8, "*OperatorSet"),
        "metadata_props": (14, "*Entry"),
        "training_info": (20, "*Anything"),
        "functions": (25, "*Anything"),
    },
    "OperatorSet": {"domain": (1, "bytes"), "version": (2, "int64")},
    "Entry": {"key": (1, "bytes"), "value": (2, "bytes")},
    "Graph": {
        "node": (1, "*Node"),
        "initializer": (5, "*Tensor"),
        "input": (11, "*Value"),
        "output": (12, "*Value"),
        "sparse_initializer": (15, "*Anything"),
    },
    "Node": {
        "input": (1, "*bytes"),
        "output": (2, "*bytes"),
        "op_type": (4, "bytes"),
        "attribute": (5, "*Attribute"),
        "domain": (7, "bytes"),
    },
    "Attribute": {
        "name": (1, "bytes"),
        "i": (3, "int64"),
        "s": (4, "bytes"),
        "t": (5, "Tensor"),
        "g": (6, "Anything"),
        "tensors": (10, "*Anything"),
        "graphs": (11, "*Anything"),
        "ref_attr_name": (21, "bytes"),
        "sparse_tensor": (22, "Anything"),
        "sparse_tensors": (23, "*Anything"),
    },
    "Tensor": {
        "dims": (1, "*int64"),
        "data_type": (2, "int64"),
        "name": (8, "bytes"),
        "raw_data": (9, "bytes"),
        "external_data": (13, "*Anything"),
        "data_location": (14, "int64"),
    },
    "Value": {"name": (1, "bytes")},
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
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise ModelFileError(f"{path} is no regular file", may_pass=True)
        with path.open("rb", buffering=0) as file:
            # One byte more than there is: a whole file is read with one buffer of its size, and growth is noticed.
            wanted = min(os.fstat(file.fileno()).st_size, max_bytes) + 1
            content = file.read(wanted)
            while part := file.read(max(wanted - len(content), 0)):
                content += part
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror})", may_pass=True) from error
    if len(content) > max_bytes:
        raise ModelFileError(f"{path} is larger than {max_bytes} bytes; --max-model-bytes allows more")
    return content


def parse_model(content: bytes) -> Any:
    """The message of a file's content, as far as it is checked. Raises ModelFileError, without the file's name."""
    try:
        return _OnnxModel.FromString(content)
    except DecodeError as error:
        raise ModelFileError("is no ONNX model", detail=str(error)) from error


def check_model(content: bytes) -> None:
    """Raises ModelFileError, without the file's name, if a file's content holds what is not to be loaded."""
    if content[4:8] == b"ORTM":  # another format, which onnxruntime takes for a model as well
        raise ModelFileError("is in onnxruntime's own format; write an ONNX file")
    model = parse_model(content)
    if not model.HasField("graph"):
        raise ModelFileError("is no ONNX model: it has no graph")
    _check_opset(model)
    if model.functions or model.training_info:
        what = "functions of its own" if model.functions else "training information"
        raise ModelFileError(f"has {what}; export it without")
    _check_manifest_size(model)
    graph = model.graph
    _check_counts(graph)
    for tensor in graph.initializer:
        _check_tensor(tensor, len(content))
    for node in graph.node:
        _check_node(node, len(content))
    check_sizes(graph)


def _check_opset(model: Any) -> None:
    versions = [each.version for each in model.opset_import if each.domain in _OWN_DOMAINS]
    if not versions or not all(version in OPSETS for version in versions):
        found = ", ".join(map(str, versions[:_MAX_SHOWN])) or "none"
        raise ModelFileError(f"is of the opset {found}; export it with one from {OPSETS[0]} to {OPSETS[-1]}")


def _check_manifest_size(model: Any) -> None:
    size = sum(len(each.value) for each in model.metadata_props if each.key == MANIFEST_KEY.encode())
    if size > _MAX_MANIFEST_BYTES:
        raise ModelFileError(f"has a manifest of {size} bytes; {_MAX_MANIFEST_BYTES} are allowed")


def _check_counts(graph: Any) -> None:
    if graph.sparse_initializer:
        raise ModelFileError("has sparse initializers; export it with dense ones")
    for what, count, most in (
        ("operators", len(graph.node), _MAX_NODES),
        ("tensors", len(graph.initializer), _MAX_TENSORS),
    ):
        if count > most:
            raise ModelFileError(f"has {count} {what}; {most} are allowed")


def _check_node(node: Any, file_bytes: int) -> None:
    name, shown = node.op_type.decode(errors="replace"), quoted(node.op_type)
    if node.domain not in _OWN_DOMAINS:
        raise ModelFileError(f"uses the operator {shown} of {quoted(node.domain)}; only ONNX's own are run")
    if name not in OPERATORS:
        raise ModelFileError(
            f"uses the operator {shown}; only feed-forward ones are run, which draw no noise, run no loop "
            "and hold no other graph"
        )
    for attribute in node.attribute:
        _check_attribute(attribute, shown, file_bytes)
    if name == "Dropout" and any(node.input[2:]):
        raise ModelFileError("uses Dropout in training mode, which is random; export it in eval mode")


def _check_attribute(attribute: Any, operator: str, file_bytes: int) -> None:
    name = attribute.name.decode(errors="replace")
    if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
        raise ModelFileError(f"has a sparse tensor in the operator {operator}; export it with a dense one")
    is_known = name in ATTRIBUTES or (name, operator) == ("seed", "'Dropout'")  # a seed of what draws nothing
    others = attribute.HasField("g"), attribute.graphs, attribute.tensors, attribute.ref_attr_name
    if not is_known or any(others):
        raise ModelFileError(
            f"has the attribute {quoted(attribute.name)} in the operator {operator}, which is not run"
        )
    if name == "training_mode" and attribute.i:
        raise ModelFileError(f"uses {operator} in training mode; export it in eval mode")
    if name == "reduction" and attribute.s not in _REDUCTIONS:
        raise ModelFileError(
            f"has the reduction {quoted(attribute.s)} in the operator {operator}; only add is run"
        )
    if attribute.HasField("t"):
        _check_tensor(attribute.t, file_bytes)


def _check_tensor(tensor: Any, file_bytes: int) -> None:
    if tensor.data_location or tensor.external_data:
        raise ModelFileError("keeps data in other files; export it as one file")
    if len(tensor.dims) > _MAX_DIMENSIONS:
        raise ModelFileError(f"has a tensor of {len(tensor.dims)} dimensions; {_MAX_DIMENSIONS} are allowed")
    if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) > _VALUES_A_BYTE * file_bytes:
        raise ModelFileError(f"has a tensor of the shape {list(tensor.dims)}, for which it holds too little data")
