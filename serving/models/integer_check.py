"""Whether a file that says its arithmetic is of integers has no other, so that its bits are the same everywhere.

The bounds are those under which `bgan export` writes it: no kernel saturates, and sums are exact as float32.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ModelFileError
from .model_check import parse_model

OPERATORS = frozenset(
    """
    Add Cast Clip Concat Gather GatherElements Greater Less MatMulInteger Mul Pad Reshape Sigmoid Slice Transpose
    """.split()  # noqa: SIM905 - a list literal takes a line for each
)
"""Those of them that see floats see one value at a time: nothing is added up in an order of its own."""
WEIGHT_LIMIT = 63
"""Twice 64 times 255 is where onnxruntime's 16-bit sums of two products saturate, on CPUs without VNNI."""
SUM_LIMIT = 2**24
_INPUT_LIMIT = 255
_TYPES: dict[int, np.dtype[Any]] = {3: np.dtype("<i1"), 6: np.dtype("<i4")}  # ONNX's INT8 and INT32


def check_integers(content: bytes) -> None:
    """Check a file that `check_model` let in. Raises ModelFileError, without its name, if it breaks a bound."""
    graph = parse_model(content).graph
    constants = {each.name: each for each in graph.initializer}
    origins = {node.output[0]: node.input[0] for node in graph.node if node.op_type in (b"Gather", b"Reshape")}
    added = {
        origins.get(name, name): node.input for node in graph.node if node.op_type == b"Add" for name in node.input
    }
    for node in graph.node:
        operator = node.op_type.decode(errors="replace")
        if operator not in OPERATORS:
            raise ModelFileError(f"is no integer model, though its manifest says so: it uses {operator[:64]!r}")
        if operator == "MatMulInteger":
            terms = [origins.get(name, name) for name in added.get(node.output[0], ())]
            sources = [constants.get(name) for name in (*node.input[1:], *terms) if name != node.output[0]]
            _check_product(sources)


def _check_product(sources: list[Any]) -> None:
    """Check the constant weights and offsets of a product, of which nothing else is known."""
    if len(sources) != 2 or None in sources:
        raise ModelFileError("has a product of integers other than with constant weights and offsets")
    weight, offsets = map(_values, sources)
    largest = int(np.abs(weight).max(initial=0))
    if largest > WEIGHT_LIMIT:
        raise ModelFileError(f"has integer weights of up to {largest}; up to {WEIGHT_LIMIT} none saturates")
    offsets = offsets.reshape(-1, weight.shape[-1])
    high, low = _INPUT_LIMIT * weight.clip(min=0).sum(0), _INPUT_LIMIT * weight.clip(max=0).sum(0)
    largest = int(max(np.abs(sums).max(initial=0) for sums in (high, low, offsets + high, offsets + low)))
    if largest >= SUM_LIMIT:
        raise ModelFileError(f"has integer sums of up to {largest:,}; they are exact below {SUM_LIMIT:,}")


def _values(tensor: Any) -> npt.NDArray[np.int64]:
    dtype = _TYPES.get(tensor.data_type)
    if dtype is None or len(tensor.raw_data) != dtype.itemsize * int(np.prod(tensor.dims)):
        raise ModelFileError("has integer weights or offsets in another format than `bgan export` writes")
    values = np.frombuffer(tensor.raw_data, dtype).astype(np.int64)
    return values.reshape(tensor.dims)
