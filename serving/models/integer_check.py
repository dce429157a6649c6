"""Whether a file that says its arithmetic is of integers has no other, so that its bits are the same everywhere.

The bounds are those under which `bgan export` writes it: no kernel saturates, and sums are exact as float32.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ModelFileError
from .model_check import parse_model

OPERATORS = frozenset(
    """
    Add Cast Clip Concat Expand Gather GatherElements Greater Less MatMulInteger Min Mul Pad QLinearMatMul Reshape
    Shape Sigmoid Slice Transpose
    """.split()  # noqa: SIM905 - a list literal takes a line for each
)
"""Those of them that see floats see one value at a time: nothing is added up in an order of its own."""
WEIGHT_LIMIT = 63
"""Twice 64 times 255 is where onnxruntime's 16-bit sums of two products saturate, on CPUs without VNNI."""
SUM_LIMIT = 2**24
_INPUT_LIMIT = 255
_EXPONENTS = range(-23, 2)  # as math.frexp has them: of 2^-24 to 1
_SCALES = (1, 0, None, 0, 1, 0)
"""Scale and zero of the inputs, of the weights, and of the outputs of a product that is rounded at once."""
# ONNX's FLOAT, UINT8, INT8 and INT32
_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("u1"), 3: np.dtype("i1"), 6: np.dtype("<i4")}


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
            if len(sources) != 2 or None in sources:
                raise ModelFileError("has a product of integers other than with constant weights and offsets")
            _check_product(*map(_integers, sources))
        elif operator == "QLinearMatMul":
            sources = [constants.get(name) for name in node.input[1:]]
            if len(sources) != len(_SCALES) + 1 or None in sources:
                raise ModelFileError(
                    "has a rounded product of integers other than with constant weights and scales"
                )
            weight = _integers(sources.pop(2))
            _check_product(weight, np.zeros(weight.shape[-1:], np.int64))
            _check_scales(sources)


def _check_scales(sources: list[Any]) -> None:
    values = [_values(each) for each in sources]
    fits = all(
        value.size == 1 and wanted in (None, value.item()) for wanted, value in zip(_SCALES, values, strict=True)
    )
    if not fits or not _is_power(values[_SCALES.index(None)].item()):
        raise ModelFileError("scales integers by other than one power of two from 2^-24 to 1, which is exact")


def _is_power(scale: float) -> bool:
    fraction, exponent = math.frexp(scale)
    return fraction == 0.5 and exponent in _EXPONENTS


def _check_product(weight: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> None:
    """Check the constant weights and offsets of a product, of which nothing else is known."""
    if weight.ndim != 2 or not weight.size or offsets.size % weight.shape[1]:
        raise ModelFileError("has a product of integers whose weights and offsets do not fit each other")
    largest = int(np.abs(weight).max(initial=0))
    if largest > WEIGHT_LIMIT:
        raise ModelFileError(f"has integer weights of up to {largest}; up to {WEIGHT_LIMIT} none saturates")
    offsets = offsets.reshape(-1, weight.shape[-1])
    high, low = _INPUT_LIMIT * weight.clip(min=0).sum(0), _INPUT_LIMIT * weight.clip(max=0).sum(0)
    largest = int(max(np.abs(sums).max(initial=0) for sums in (high, low, offsets + high, offsets + low)))
    if largest >= SUM_LIMIT:
        raise ModelFileError(f"has integer sums of up to {largest:,}; they are exact below {SUM_LIMIT:,}")


def _integers(tensor: Any) -> npt.NDArray[np.int64]:
    return _values(tensor).astype(np.int64)


def _values(tensor: Any) -> npt.NDArray[Any]:
    dtype = _TYPES.get(tensor.data_type)
    if dtype is None or len(tensor.raw_data) != dtype.itemsize * int(np.prod(tensor.dims)):
        raise ModelFileError("has integer weights or offsets in another format than `bgan export` writes")
    return np.frombuffer(tensor.raw_data, dtype).reshape(tensor.dims)
