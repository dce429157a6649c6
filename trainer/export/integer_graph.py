"""The ONNX graph of an integer generator, of standard operators that no runtime computes otherwise.

Between a product and its uint8 there is no sum of floats, and no product beside a sum that might be fused with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from .graph import OPSET
from .integer import LATENT_SCALE, LATENT_ZERO, LEVELS, IntegerGenerator, IntegerLayer
from .products import PatchAxis, Patches

IR_VERSION = 10


class _Graph:
    """Nodes and constants, one after the other."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, values: NDArray[Any]) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def integers(self, *values: int) -> str:
        """A constant int64 [len(values)], such as a shape."""
        return self.constant(f"integers_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def number(self, value: float, dtype: type[np.generic] = np.float32) -> str:
        """A constant of no dimensions."""
        return self.constant(f"{np.dtype(dtype).name}_{value:g}", np.array(value, dtype))

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output


def integer_graph(generator: IntegerGenerator) -> onnx.ModelProto:
    """The model, from `latents` and what else the generator takes to `images` and `probabilities`."""
    graph = _Graph()
    values = _latents(graph)
    for number, layer in enumerate(generator.layers):
        if layer.patches is not None:
            values = _patches(graph, values, layer.patches)
        table = number == 0 and generator.class_count > 0
        sums = _sums(graph, values, layer, number, "labels" if table else None)
        if layer.levels is not None:
            kind = TensorProto.UINT8 if layer.levels == LEVELS else TensorProto.INT32
            values = _rescaled(graph, sums, layer, number, kind)
            if layer.patches is not None:
                values = _image(graph, values, layer.patches, layer.weight.shape[1])
    _outputs(graph, generator, sums, values)
    return _model(graph, generator)


def _latents(graph: _Graph) -> str:
    scaled = graph.add("Mul", "latents", graph.number(LATENT_SCALE))
    return _clipped(graph, graph.add("Add", graph.add("Round", scaled), graph.number(LATENT_ZERO)), LEVELS)


def _clipped(graph: _Graph, values: str, levels: int, kind: int = TensorProto.UINT8) -> str:
    clipped = graph.add("Clip", values, graph.number(0), graph.number(levels))
    return graph.add("Cast", clipped, to=kind)


def _sums(graph: _Graph, rows: str, layer: IntegerLayer, number: int, labels: str | None) -> str:
    products = graph.add("MatMulInteger", rows, graph.constant(f"weight_{number}", layer.weight))
    offsets = graph.constant(f"offsets_{number}", layer.offsets if labels else layer.offsets[0])
    return graph.add("Add", products, graph.add("Gather", offsets, labels, axis=0) if labels else offsets)


def _logits(graph: _Graph, sums: str, layer: IntegerLayer, number: int) -> str:
    floats = graph.add("Cast", sums, to=TensorProto.FLOAT)
    return graph.add("Mul", floats, graph.constant(f"scale_{number}", layer.scale))


def _rescaled(graph: _Graph, sums: str, layer: IntegerLayer, number: int, kind: int) -> str:
    assert layer.levels is not None
    return _clipped(graph, graph.add("Round", _logits(graph, sums, layer, number)), layer.levels, kind)


def _patches(graph: _Graph, values: str, patches: Patches) -> str:
    """As Patches.gather."""
    rows, columns = patches.rows, patches.columns
    image = graph.add("Reshape", values, graph.integers(-1, *patches.shape))
    pads = [0, rows.pads[0], columns.pads[0], 0, 0, rows.pads[1], columns.pads[1], 0]
    if any(pads):
        image = graph.add("Pad", image, graph.integers(*pads))
    lines = [_every(graph, image, rows, y, 1) for y in range(rows.length)]
    parts = [_every(graph, line, columns, x, 2) for line in lines for x in range(columns.length)]
    return graph.add("Concat", *parts, axis=3) if len(parts) > 1 else parts[0]


def _every(graph: _Graph, values: str, axis: PatchAxis, first: int, dimension: int) -> str:
    end = first + (axis.count - 1) * axis.group + 1
    return graph.add("Slice", values, *(graph.integers(each) for each in (first, end, dimension, axis.group)))


def _image(graph: _Graph, values: str, patches: Patches, units: int) -> str:
    """As Patches.image."""
    down, across = patches.rows, patches.columns
    blocks = (-1, down.count, across.count, down.outputs, units // down.outputs)
    lines = graph.add("Transpose", graph.add("Reshape", values, graph.integers(*blocks)), perm=[0, 1, 3, 2, 4])
    size = down.count * down.outputs, across.count * across.outputs
    image = graph.add("Reshape", lines, graph.integers(-1, *size, units // (down.outputs * across.outputs)))
    kept = down.kept, across.kept
    if size == (down.axis.after, across.axis.after):
        return image
    bounds = [graph.integers(*(getattr(each, end) for each in kept)) for end in ("start", "stop")]
    return graph.add("Slice", image, *bounds, graph.integers(1, 2))


def _outputs(graph: _Graph, generator: IntegerGenerator, sums: str, values: str) -> None:
    last, number = generator.layers[-1], len(generator.layers) - 1
    if generator.table is not None:
        indices = _planes(graph, values, generator, "")
        table = graph.constant("table", generator.table)
        graph.add("Gather", table, indices, axis=0, output="probabilities")
        fires = graph.add("Less", "uniforms", "probabilities")
        graph.add("Cast", fires, to=TensorProto.UINT8, output="images")
        return
    fires = graph.add("Cast", graph.add("Greater", sums, graph.number(0, np.int32)), to=TensorProto.UINT8)
    probabilities = graph.add("Sigmoid", _logits(graph, sums, last, number))
    for output, each in (("images", fires), ("probabilities", probabilities)):
        image = each if last.patches is None else _image(graph, each, last.patches, last.weight.shape[1])
        _planes(graph, image, generator, output)


def _planes(graph: _Graph, image: str, generator: IntegerGenerator, output: str) -> str:
    """Channels first, as images are."""
    channels = generator.image_shape[0]
    if generator.layers[-1].patches is not None and channels > 1:
        return graph.add("Transpose", image, perm=[0, 3, 1, 2], output=output)
    return graph.add("Reshape", image, graph.integers(-1, *generator.image_shape), output=output)


def _model(graph: _Graph, generator: IntegerGenerator) -> onnx.ModelProto:
    def value(name: str, kind: int, shape: Sequence[int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, ["batch", *shape])

    shape = generator.image_shape
    inputs = [value("latents", TensorProto.FLOAT, [generator.latent_size])]
    if generator.class_count:
        inputs.append(value("labels", TensorProto.INT64, []))
    if generator.table is not None:
        inputs.append(value("uniforms", TensorProto.FLOAT, shape))
    results = [value("images", TensorProto.UINT8, shape), value("probabilities", TensorProto.FLOAT, shape)]
    body = helper.make_graph(graph.nodes, "generator", inputs, results, list(graph.constants.values()))
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
