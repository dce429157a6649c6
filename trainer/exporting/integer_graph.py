"""The ONNX graph of an integer generator, of standard operators that no runtime computes otherwise.

Between a product and its uint8 floats are only multiplied, once: there is no sum that might be fused with it. The
products between the first and the last are QLinearMatMul, which does all of that in one pass.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto

from .graph_nodes import GraphNodes, batch_of
from .integer import LATENT_SCALE, LATENT_ZERO, LEVELS, TABLE_LEVELS, IntegerGenerator, IntegerLayer
from .products import Patches

_LOGIT_STEPS = 2**11  # of a CNN's logits, from which probabilities follow: 16 bits from -16 to 16


def integer_graph(generator: IntegerGenerator) -> onnx.ModelProto:
    """The model, from `latents` and what else the generator takes to `images` and `probabilities`."""
    graph = GraphNodes()
    last, labels = len(generator.layers) - 1, "labels" if generator.class_count else None
    sums = _sums(graph, _latents(graph), generator.layers[0], 0, labels)
    values = _cut(graph, _scaled(graph, sums, generator.layers[0], 0), LEVELS, TensorProto.UINT8)
    for number, layer in enumerate(generator.layers[1:-1], 1):
        values = _rounded(graph, values, layer, number)
    sums = _sums(graph, values, generator.layers[-1], last, None)
    (_threshold_outputs if generator.table is None else _bernoulli_outputs)(graph, generator, sums)
    return _model(graph, generator)


def _latents(graph: GraphNodes) -> str:
    # A product with a power of two is exact, so that it may be fused with the sum.
    scaled = graph.add("Mul", "latents", graph.number(LATENT_SCALE))
    steps = graph.add("Add", scaled, graph.number(LATENT_ZERO + 0.5))
    return _cut(graph, steps, LEVELS, TensorProto.UINT8)


def _cut(graph: GraphNodes, values: str, levels: int, kind: int, *, least: int = 0) -> str:
    clipped = graph.add("Clip", values, graph.number(least), graph.number(levels))
    return graph.add("Cast", clipped, to=kind)


def _sums(graph: GraphNodes, values: str, layer: IntegerLayer, number: int, labels: str | None) -> str:
    """All sums of an image, [N, sums]."""
    rows = _rows(graph, values, layer, number)
    products = graph.add("MatMulInteger", rows, graph.constant(f"weight_{number}", layer.weight))
    if layer.patches is not None:  # one long row of offsets is added faster than many short ones
        products = graph.add("Reshape", products, graph.integers(-1, _sum_count(layer)))
    if labels:
        offsets = graph.add("Gather", graph.constant(f"offsets_{number}", layer.offsets), labels, axis=0)
    else:
        offsets = graph.constant(f"offsets_{number}", np.resize(layer.offsets[0], _sum_count(layer)))
    return graph.add("Add", products, offsets)


def _scaled(graph: GraphNodes, sums: str, layer: IntegerLayer, number: int) -> str:
    floats = graph.add("Cast", sums, to=TensorProto.FLOAT)
    scale = graph.constant(f"scale_{number}", np.resize(layer.scale, _sum_count(layer)))
    return graph.add("Mul", floats, scale)


def _sum_count(layer: IntegerLayer) -> int:
    """How many sums an image has: columns, times its patches."""
    return int(layer.weight.shape[1]) * (1 if layer.patches is None else layer.patches.count)


def _rounded(graph: GraphNodes, values: str, layer: IntegerLayer, number: int) -> str:
    """A layer's outputs, as the next one takes them."""
    one, zero = graph.number(1), graph.number(0, np.uint8)
    weight = graph.constant(f"weight_{number}", layer.weight)
    scale, zeros = graph.number(float(layer.scale[0])), graph.number(0, np.int8)
    rows = _rows(graph, values, layer, number)
    products = graph.add("QLinearMatMul", rows, one, zero, weight, scale, zeros, one, zero)
    if layer.patches is None:
        return products
    if not layer.in_blocks:
        return _image(graph, products, layer)
    inside = layer.patches.is_inside(layer.weight.shape[1]).reshape(1, -1) * np.uint8(LEVELS)
    flat = graph.add("Reshape", products, graph.integers(-1, _sum_count(layer)))
    return graph.add("Min", flat, graph.constant(f"inside_{number}", inside))


def _rows(graph: GraphNodes, values: str, layer: IntegerLayer, number: int) -> str:
    """As IntegerLayer.rows."""
    parts = [values] if layer.patches is None else _patches(graph, values, layer.patches)
    if len(layer.constants):
        parts.append(_ends(graph, layer, number))
    return graph.add("Concat", *parts, axis=-1) if len(parts) > 1 else parts[0]


def _ends(graph: GraphNodes, layer: IntegerLayer, number: int) -> str:
    """The constant inputs of each row: one row of them, for a batch that is known only in a run."""
    counts = [] if layer.patches is None else [layer.patches.rows.count, layer.patches.columns.count]
    batch = graph.add("Shape", "latents", end=1)
    shape = graph.add("Concat", batch, graph.integers(*counts, len(layer.constants)), axis=0)
    row = layer.constants.reshape(*[1] * (len(counts) + 1), -1)
    return graph.add("Expand", graph.constant(f"ends_{number}", row), shape)


def _patches(graph: GraphNodes, values: str, patches: Patches) -> list[str]:
    """The pieces of which Patches.gather makes rows."""
    rows, columns, (down, across, high, wide, channels) = patches.rows, patches.columns, patches.shape
    blocks = graph.add("Reshape", values, graph.integers(-1, down, across, high, wide * channels))
    pads = [0, rows.pads[0], columns.pads[0], 0, 0, 0, rows.pads[1], columns.pads[1], 0, 0]
    if any(pads):
        blocks = graph.add("Pad", blocks, graph.integers(*pads))
    parts = []
    for y, x in patches.pieces():
        lengths = (y.stop - y.start), (x.stop - x.start) * channels
        slices = [rows.every(y), columns.every(x), slice(y.start, y.stop, 1)]
        slices.append(slice(x.start * channels, x.stop * channels, 1))
        ends = [graph.integers(*(getattr(each, end) for each in slices)) for end in ("start", "stop", "step")]
        part = graph.add("Slice", blocks, ends[0], ends[1], graph.integers(1, 2, 3, 4), ends[2])
        parts.append(graph.add("Reshape", part, graph.integers(-1, rows.count, columns.count, math.prod(lengths))))
    return parts


def _image(graph: GraphNodes, values: str, layer: IntegerLayer) -> str:
    """As Patches.image, of all products of an image in a row."""
    assert layer.patches is not None
    down, across, columns = layer.patches.rows, layer.patches.columns, layer.weight.shape[1]
    blocks = (-1, down.count, across.count, down.outputs, columns // down.outputs)
    lines = graph.add("Transpose", graph.add("Reshape", values, graph.integers(*blocks)), perm=[0, 1, 3, 2, 4])
    size = down.count * down.outputs, across.count * across.outputs
    image = graph.add("Reshape", lines, graph.integers(-1, *size, columns // (down.outputs * across.outputs)))
    if size == (down.axis.after, across.axis.after):
        return image
    bounds = [graph.integers(*(getattr(each.kept, end) for each in (down, across))) for end in ("start", "stop")]
    return graph.add("Slice", image, *bounds, graph.integers(1, 2))


def _threshold_outputs(graph: GraphNodes, generator: IntegerGenerator, sums: str) -> None:
    last, number = generator.layers[-1], len(generator.layers) - 1
    # Each output is what its last operator writes: a Reshape there would copy it.
    fires = _planes(graph, graph.add("Greater", sums, graph.number(0, np.int32)), generator)
    graph.add("Cast", fires, to=TensorProto.UINT8, output="images")
    logits = _scaled(graph, sums, last, number)
    if last.patches is None:
        logits = _planes(graph, logits, generator)
    else:  # 16 bits are put into an image's order many times as fast as 32
        steps = graph.add("Mul", logits, graph.number(_LOGIT_STEPS))
        steps = _cut(graph, steps, 2**15 - 1, TensorProto.INT16, least=-(2**15))
        floats = graph.add("Cast", _planes(graph, steps, generator), to=TensorProto.FLOAT)
        logits = graph.add("Mul", floats, graph.number(1 / _LOGIT_STEPS))
    graph.add("Sigmoid", logits, output="probabilities")


def _bernoulli_outputs(graph: GraphNodes, generator: IntegerGenerator, sums: str) -> None:
    last, number = generator.layers[-1], len(generator.layers) - 1
    assert generator.table is not None
    indices = _cut(graph, _scaled(graph, sums, last, number), TABLE_LEVELS, TensorProto.UINT16)
    flat = graph.add("Reshape", _planes(graph, indices, generator), graph.integers(-1))
    flat = graph.add("Cast", flat, to=TensorProto.INT32)
    # GatherElements copies single values several times as fast as Gather.
    found = graph.add("GatherElements", graph.constant("table", generator.table), flat, axis=0)
    graph.add("Reshape", found, graph.integers(-1, *generator.image_shape), output="probabilities")
    graph.add("Cast", graph.add("Less", "uniforms", "probabilities"), to=TensorProto.UINT8, output="images")


def _planes(graph: GraphNodes, values: str, generator: IntegerGenerator) -> str:
    """What all sums of an image became as an image, channels first."""
    last = generator.layers[-1]
    image = values if last.patches is None else _image(graph, values, last)
    if last.patches is not None and generator.image_shape[0] > 1:
        return graph.add("Transpose", image, perm=[0, 3, 1, 2])
    return graph.add("Reshape", image, graph.integers(-1, *generator.image_shape))


def _model(graph: GraphNodes, generator: IntegerGenerator) -> onnx.ModelProto:
    shape = generator.image_shape
    inputs = [batch_of("latents", TensorProto.FLOAT, [generator.latent_size])]
    if generator.class_count:
        inputs.append(batch_of("labels", TensorProto.INT64, []))
    if generator.table is not None:
        inputs.append(batch_of("uniforms", TensorProto.FLOAT, shape))
    results = [batch_of("images", TensorProto.UINT8, shape), batch_of("probabilities", TensorProto.FLOAT, shape)]
    return graph.model("generator", inputs, results)
