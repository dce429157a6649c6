"""A graph that is put together node by node."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from .tracing import OPSET

IR_VERSION = 10


class GraphNodes:
    """Nodes and constants, one after the other."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """A constant of that name."""
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def integers(self, *values: int) -> str:
        """A constant int64 [len(values)], such as a shape."""
        return self.constant(f"integers_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def number(self, value: float, dtype: type[np.generic] = np.float32) -> str:
        """A constant of no dimensions."""
        return self.constant(f"{np.dtype(dtype).name}_{value:g}", np.array(value, dtype))

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """A node with one output; returns the output's name."""
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def include(self, graph: onnx.GraphProto, prefix: str, known: Mapping[str, str]) -> None:
        """Another graph's nodes and constants, their names behind a prefix, but for those that are known."""

        def renamed(name: str) -> str:
            return known.get(name, prefix + name) if name else name

        for node in graph.node:
            added = onnx.NodeProto()
            added.CopyFrom(node)
            added.name = prefix + node.name
            added.input[:], added.output[:] = map(renamed, node.input), map(renamed, node.output)
            self.nodes.append(added)
        for constant in graph.initializer:
            self.constant(renamed(constant.name), numpy_helper.to_array(constant))

    def model(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """The model of all nodes, whose graph has that name."""
        body = helper.make_graph(self.nodes, name, inputs, outputs, list(self.constants.values()))
        return helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def batch_of(name: str, kind: int, shape: Sequence[int]) -> onnx.ValueInfoProto:
    """An input or output [batch, *shape] of a graph; `kind` is that of onnx.TensorProto."""
    return helper.make_tensor_value_info(name, kind, ["batch", *shape])
