"""Sizes that the noise decides: what is let in, and files that would be more than what was tried of them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bgan.serving.errors import ModelFileError
from bgan.serving.models.checked import load_checked
from bgan.serving.models.engine import load_engine
from bgan.serving.models.model_check import parse_model
from bgan.serving.models.model_files import snapshot
from bgan.serving.models.providers import open_session
from bgan.serving.models.size_check import _OF_SELECTED_INPUTS, _OF_SELECTED_ROWS, has_selections, selecting
from tests.fixtures.write import PARTS
from tests.serving.models.test_model_check import LATENTS, PIXELS, make

NEVER, ALWAYS = 100.0, -100.0
"""Thresholds of latents, which lie between -4.2 and 4.2."""


def _node(kind, output, *inputs, **attributes):
    return helper.make_node(kind, inputs, [output], **attributes)


CONSTANTS = {
    "zero": np.array(0),
    "one": np.array([1]),
    "last": np.array([-1]),
    "from_end": np.array([-5]),
    "three": np.array([3]),
    "many": np.array([1000, 1]),
    "square": np.array([-1, 1, 2, 4]),
    "ones": np.ones((LATENTS, PIXELS), np.float32),
    "table": np.ones((3, LATENTS), np.float32),
}


def gated(*nodes, part="chosen", threshold=0.0, attributes=None, initializers=(), last="sum"):
    """Latents of rows whose first one is above a threshold go, by way of `nodes`, into a part of the logits."""
    constants = {**CONSTANTS, "threshold": np.array(threshold, np.float32)}
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    before = [
        _node("Gather", "leading", "latents", "zero", axis=1),
        _node("Greater", "gate", "leading", "threshold"),
        _node("NonZero", "places", "gate"),
        _node("Transpose", "found", "places", perm=[1, 0]),
        _node("Squeeze", "rows", "found", "one"),
        _node("Gather", "chosen", "latents", "rows"),
    ]
    after = [
        _node("MatMul", "more", part, "ones"),
        _node("ScatterND", "sum", "wide", "found", "more", **(attributes or {"reduction": "add"})),
    ]
    return make(nodes=[*before, *nodes, *after], initializers=[*tensors, *initializers], last=last)


def _slice(*bounds):
    return [_node("Slice", "cut", "chosen", *bounds)]


HOSTILE = {
    "expand by the number": (
        lambda: gated(_node("Shape", "size", "chosen"), _node("Expand", "e", "wide", "size")),
        "has a size that depends on the noise, in the operator 'Expand'",
    ),
    "fill by the number": (
        lambda: gated(_node("Size", "size", "places"), _node("ConstantOfShape", "c", "size")),
        "has a size that depends on the noise, in the operator 'ConstantOfShape'",
    ),
    "a range of the number": (
        lambda: gated(
            _node("Size", "size", "chosen"), _node("Mul", "more_of_it", "size", "zero"),
            _node("Range", "r", "zero", "more_of_it", "size"),
        ),
        "has a size that depends on the noise, in the operator 'Range'",
    ),
    "dimensions by the noise": (
        lambda: gated(
            _node("Cast", "axes", "leading", to=TensorProto.INT64), _node("ReduceSum", "r", "wide", "axes")
        ),
        "has a size that depends on the noise, in the operator 'ReduceSum'",
    ),
    # Everything selected leaves nothing between the fifth from the end and the third, three rows leave all.
    "slice from the end": (lambda: gated(*_slice("from_end", "three"), part="cut"), "in the operator 'Slice'"),
    "slice up to the end": (lambda: gated(*_slice("three", "last"), part="cut"), "in the operator 'Slice'"),
    "slice backwards": (lambda: gated(*_slice("three", "one", "one", "last"), part="cut"), "'Slice'"),
    "slice by what is computed": (
        lambda: gated(_node("Neg", "minus", "three"), *_slice("minus", "three"), part="cut"),
        "in the operator 'Slice'",
    ),
    # One row leaves one dimension, of pixels, where more leave two.
    "squeeze what is one": (lambda: gated(_node("Squeeze", "s", "chosen"), part="s"), "in the operator 'Squeeze'"),
    "split": (
        lambda: gated(helper.make_node("Split", ["chosen"], ["a", "b"], axis=0, num_outputs=2), part="b"),
        "in the operator 'Split'",
    ),
    "tile": (lambda: gated(_node("Tile", "t", "chosen", "many"), part="t"), "in the operator 'Tile'"),
    "expand": (lambda: gated(_node("Expand", "t", "chosen", "many"), part="t"), "in the operator 'Expand'"),
    # The more rows its kernel has, the less a convolution gives.
    "a kernel": (
        lambda: gated(
            _node("Reshape", "images", "latents", "square"), _node("Reshape", "kernels", "chosen", "square"),
            _node("Conv", "c", "images", "kernels"),
        ),
        "has rows that the noise selects in the operator 'Conv', in a place where more of them may give less",
    ),
    "as many images": (
        lambda: gated(last="more"),
        "gives so many images as the noise selects; it has to give one for each row",
    ),
    "as many images by data": (
        lambda: gated(_node("ScatterND", "s", "chosen", "found", "chosen"), part="s", last="more"),
        "gives so many images as the noise selects",
    ),
    "another reduction": (
        lambda: gated(attributes={"reduction": "mul"}),
        "has the reduction 'mul' in the operator 'ScatterND'; only add is run",
    ),
    "two of a name": (
        lambda: gated(initializers=[numpy_helper.from_array(np.array([-9]), "three")]),
        "has two tensors of one name",
    ),
    "a value twice": (lambda: gated(_node("Neg", "wide", "wide")), "computes the value 'wide' twice"),
    "a constant computed": (lambda: gated(_node("Neg", "three", "one")), "computes the value 'three' twice"),
}  # fmt: skip


def _write(path, model):
    path.write_bytes(model.SerializeToString())
    return path


def _refused(path):
    with pytest.raises(ModelFileError) as caught:
        load_engine(path)
    return str(caught.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_sizes_that_the_trial_would_not_show_are_refused(tmp_path, name):
    build, says = HOSTILE[name]
    text = _refused(_write(tmp_path / "x.onnx", build()))
    assert says in text
    assert "\n" not in text


def test_what_is_crafted_here_is_good_but_for_what_makes_it_hostile(tmp_path):
    sizes = [_node("Shape", "size", "chosen"), _node("Cast", "number", "size", to=TensorProto.FLOAT)]
    again = [
        _node("NonZero", "inner_places", "chosen"),
        _node("Gather", "inner_rows", "inner_places", "zero"),
        _node("Gather", "chosen_again", "chosen", "inner_rows"),
        _node("Slice", "first_chosen", "chosen", "zero_at", "one_at"),
        _node("Add", "all_of_it", "chosen", "first_chosen"),
    ]
    zero = numpy_helper.from_array(np.array([0], np.int32), "zero_at")
    one = numpy_helper.from_array(np.array([1], np.int32), "one_at")
    for model in (
        gated(),
        gated(attributes={"reduction": "none"}),
        gated(*sizes),
        gated(*again, initializers=[zero, one]),
    ):
        engine = load_engine(_write(tmp_path / "x.onnx", model))
        assert len(engine.sample(1, 0, 5).packed_images) == 10
        assert engine.tile_rows is None


@pytest.mark.parametrize("threshold", [NEVER, 0.0])
def test_what_fails_where_everything_is_selected_is_refused(tmp_path, threshold):
    """Whether the probed noise selects as much or not: here it looks up the fourth row of a table of three."""
    hidden = _node("Gather", "found_rows", "table", "rows")
    text = _refused(_write(tmp_path / "x.onnx", gated(hidden, part="found_rows", threshold=threshold)))
    says = "cannot be run where the noise selects everything" if threshold else "cannot be run"
    assert says in text


def test_what_fails_where_nothing_is_selected_is_refused(tmp_path):
    """It looks up the first selected row."""
    nodes = [_node("Gather", "leader", "chosen", "zero"), _node("Add", "led", "chosen", "leader")]
    text = _refused(_write(tmp_path / "x.onnx", gated(*nodes, part="led", threshold=ALWAYS)))
    assert "cannot be run where the noise selects nothing" in text


MORE_INPUTS = {
    "BatchNormalization": [np.ones(4, np.float32)] * 4,
    "Conv": [np.ones((2, 4, 3, 2), np.float32)],
    "ConvTranspose": [np.ones((4, 2, 3, 2), np.float32)],
    "Flatten": [],
    "Gather": [np.array([1, 0])],
    "Gemm": [np.ones((4, 3), np.float32)],
    "GroupNormalization": [np.ones(4, np.float32)] * 2,
    "InstanceNormalization": [np.ones(4, np.float32)] * 2,
    "LayerNormalization": [np.ones(6, np.float32)],
    "MatMul": [np.ones((6, 3), np.float32)],
    "PRelu": [np.ones(1, np.float32)],
    "Pad": [np.array([0, 1, -2, 0, 1, 0, 1, -1])],
    "RMSNormalization": [np.ones(6, np.float32)],
    "Reshape": [np.array([0, -1, 2])],
    "ScatterND": [np.array([[0]]), np.ones((1, 4, 5, 6), np.float32)],
    "Slice": [np.array([1, 0]), np.array([4, 2**62]), np.array([0, 2]), np.array([2, 3])],
    "Squeeze": [np.array([3])],
    "Unsqueeze": [np.array([1, -1])],
}
MORE_ATTRIBUTES = {
    "AveragePool": {"kernel_shape": [3, 2], "strides": [2, 3], "ceil_mode": 1},
    "Cast": {"to": TensorProto.INT64},
    "Concat": {"axis": 1},
    "ConvTranspose": {"strides": [2, 3], "pads": [1, 0, 0, 1]},
    "Conv": {"strides": [2, 1], "dilations": [1, 2], "pads": [1, 0, 0, 1]},
    "DepthToSpace": {"blocksize": 2},
    "Gather": {"axis": 2},
    "GroupNormalization": {"num_groups": 2},
    "MaxPool": {"kernel_shape": [2, 3], "strides": [3, 1], "auto_pad": "SAME_UPPER"},
    "Mod": {"fmod": 1},
    "SpaceToDepth": {"blocksize": 2},
    "Transpose": {"perm": [3, 1, 0, 2]},
}
INPUTS = {"Where": ["truth", "x", "x"], **dict.fromkeys(("And", "Or", "Xor"), ["truth"] * 2), "Not": ["truth"]}


def _shape_of(operator):
    """A function that gives the shape of an operator's output for that of its input, None where there is none."""
    more = [numpy_helper.from_array(values, f"more_{i}") for i, values in enumerate(MORE_INPUTS.get(operator, []))]
    least = 1 if more else max(1, onnx.defs.get_schema(operator).min_input)
    inputs = INPUTS.get(operator, ["x"] * least) + [each.name for each in more]
    nodes = [
        _node("Cast", "truth", "x", to=TensorProto.BOOL),
        _node(operator, "y", *inputs, **MORE_ATTRIBUTES.get(operator, {})),
    ]
    shape = ["a", "b"] if operator == "Gemm" else list("abcd")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "alone", [value], [helper.make_empty_tensor_value_info("y")], more)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    session = open_session(model.SerializeToString())

    def shape_for(shape):
        try:
            return session.run(["y"], {"x": np.ones(shape, np.float32)})[0].shape
        except Exception:  # onnxruntime's share no public base
            return None

    return shape_for


@pytest.mark.parametrize("operator", sorted(_OF_SELECTED_INPUTS | _OF_SELECTED_ROWS))
def test_more_rows_never_give_less(operator):
    """Along any axis of the input, an operator that selected rows may go through has no fewer of anything."""
    shape_for, usual = _shape_of(operator), {"Gemm": (3, 4), "Squeeze": (2, 4, 5, 1)}.get(operator, (2, 4, 5, 6))
    grew = 0
    for axis in range(len(usual)):
        before = None
        for size in range(axis > 0, 10):
            found = shape_for((*usual[:axis], size, *usual[axis + 1 :]))
            if found is not None and before is not None:
                assert len(found) == len(before)
                assert all(less <= more for less, more in zip(before, found, strict=True))
                grew += before != found
            before = before if found is None else found
    assert grew or operator in ("Shape", "Size", "ScatterND")


def _wide(side):
    """A part that the probed noise never runs, of side^2 floats a row."""
    values = np.ones((side, 1), np.float32)
    tensors = {"column": values, "row": values.T, "back": values, "3d": np.array([-1, LATENTS, 1])}
    nodes = [
        _node("Reshape", "tall", "chosen", "3d"),
        _node("MatMul", "lines", "tall", "row"),  # [k, LATENTS, side]
        _node("Unsqueeze", "planes", "lines", "last"),
        _node("Mul", "bomb", "planes", "row"),  # [k, LATENTS, side, side]
        _node("MatMul", "less", "bomb", "back"),
        _node("Squeeze", "squeezed", "less", "last"),
        _node("MatMul", "small", "squeezed", "back"),
        _node("Squeeze", "again", "small", "last"),
    ]
    tensors = [numpy_helper.from_array(values, name) for name, values in tensors.items()]
    return gated(*nodes, part="again", threshold=NEVER, initializers=tensors)


def test_memory_that_no_probed_noise_asks_for_is_asked_for_at_the_check(tmp_path, processes):
    """256 rows of it are 137 GB."""
    path = _write(tmp_path / "x.onnx", _wide(4096))
    with pytest.raises(ModelFileError, match="needs more memory to run than the 4 GiB that it may take"):
        load_checked(snapshot(path))
    assert load_checked(snapshot(_write(tmp_path / "y.onnx", _wide(16)))).tile_rows is None


@pytest.mark.parametrize(("everything", "operator"), [(True, "Or"), (False, "And")])
def test_nothing_else_is_changed_where_everything_or_nothing_is_selected(gated_models, everything, operator):
    path = gated_models / "gated-sbn.onnx"
    whole = onnx.load(path)
    message = parse_model(path.read_bytes())
    assert has_selections(message)
    variant = onnx.load_from_string(selecting(message, everything=everything))
    added = [node for node in variant.graph.node if node.output[0].startswith("selected")]
    assert [node.op_type for node in added] == ["Equal", "Not", operator] * PARTS
    kept = [node for node in variant.graph.node if node not in added]
    for node, original in zip(kept, whole.graph.node, strict=True):
        if node.op_type == "NonZero":
            assert node.input[0] in {each.output[0] for each in added[2::3]}
            node.input[0] = original.input[0]
    del variant.graph.node[:]
    variant.graph.node.extend(kept)
    assert variant == whole


def test_a_model_without_gates_has_no_selections(models):
    assert not has_selections(parse_model((models / "mlp-dbn.onnx").read_bytes()))
