"""Whether what was tried of a model holds for all of its images: no size depends on the noise in an unknown way.

A size may depend on how many images there are, but not on the values that callers or the noise give. There is one
exception, by which a generator runs a part of itself for some images alone: NonZero selects rows, and their number
is the noise's. For these rows the argument is another one:

1. Their number is itself a value of the noise. `Shape` and `Size` of what was selected, or of what was computed of
   it, give values, which may decide no other size.
2. What is selected goes only through operators whose output has as many dimensions as ever, none of which gets
   smaller where one of the inputs' gets larger; so does what these give, and so on. ScatterND ends it: its output
   has the size of its data, whatever is written into it. The outputs of the graph are not selected.
3. So no tensor is larger, and no operator has more to do, than where each NonZero selects everything. That is
   tried with `selecting`, under the limits under which the model itself is tried. So is what has nothing selected:
   a tensor without rows is the other thing that the noise of the trial may never show.

Nodes come in the order in which they are computed, and no value has two of them, so one pass sees it all.
"""

from typing import Any

from ..errors import ModelFileError

# The inputs of an operator that say how large its output is, or which part of it there is.
_SIZES = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Unsqueeze": (1,),
    **{f"Reduce{kind}": (1,) for kind in ("L1", "L2", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")},
}
_ONLY_SIZES = ("Shape", "Size")  # operators whose output tells the size of their input and nothing else
_OF_SELECTED_INPUTS = frozenset(
    """
    Abs Add And Cast Ceil Celu Clip Concat Cos Div Elu Equal Erf Exp Floor Gather Gelu Greater GreaterOrEqual
    HardSigmoid HardSwish Identity LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg NonZero Not Or Pow
    Reciprocal Relu Round ScatterND Selu Shape Sigmoid Sign Sin Size Softplus Softsign Sqrt Sub Sum Tan Tanh
    ThresholdedRelu Where Xor
    """.split()  # noqa: SIM905 - a list literal takes a line for each
)
"""The operators that selected rows may go through, as any of the inputs. A dimension of 1 is as good as any larger
one there: of several that fit each other the largest is the output's."""
_OF_SELECTED_ROWS = frozenset(
    """
    AveragePool BatchNormalization Conv ConvTranspose DepthToSpace Flatten Gemm GlobalAveragePool GlobalMaxPool
    GroupNormalization InstanceNormalization LayerNormalization LogSoftmax MatMul MaxPool PRelu Pad
    RMSNormalization Reshape Slice Softmax SpaceToDepth Squeeze Transpose Unsqueeze
    """.split()  # noqa: SIM905
)
"""The same as the first input alone: the output of a convolution gets smaller where its kernel gets larger."""
# By ONNX's number of the type, where in the bytes of an integer its sign is: int32 and int64.
_SIGN_BYTES = {6: slice(3, None, 4), 7: slice(7, None, 8)}
_NEGATIVE = 128


def check_sizes(graph: Any) -> None:
    """Raises ModelFileError, without the file's name, where a graph breaks the law."""
    tensors = {each.name: each for each in graph.initializer}
    if len(tensors) < len(graph.initializer):
        raise ModelFileError("has two tensors of one name")
    of_values = {each.name for each in graph.input} - tensors.keys()
    selected: set[bytes] = set()
    known = of_values | tensors.keys() | {b""}
    for node in graph.node:
        _check_order(node, known)
        _check_node(node, of_values, selected, tensors)
        known.update(node.output)
    if not selected.isdisjoint(each.name for each in graph.output):
        raise ModelFileError("gives so many images as the noise selects; it has to give one for each row")


def _check_order(node: Any, known: set[bytes]) -> None:
    for name in node.input:
        if name not in known:
            raise ModelFileError(f"uses the value {quoted(name)} before it is computed")
    for name in node.output:
        if name and name in known:
            raise ModelFileError(f"computes the value {quoted(name)} twice")


def _check_node(node: Any, of_values: set[bytes], selected: set[bytes], tensors: dict[bytes, Any]) -> None:
    """Check one node, and note of its outputs whether values or selected rows decide them."""
    name, inputs = node.op_type.decode(errors="replace"), list(node.input)
    if not of_values.isdisjoint(inputs[place] for place in _SIZES.get(name, ()) if place < len(inputs)):
        raise ModelFileError(f"has a size that depends on the noise, in the operator {quoted(node.op_type)}")
    places = [place for place, each in enumerate(inputs) if each in selected]
    if places and not _may_have_selected(node, places, tensors):
        raise ModelFileError(
            f"has rows that the noise selects in the operator {quoted(node.op_type)}, in a place where more of "
            "them may give less; write that part with other operators"
        )
    outputs = [each for each in node.output if each]
    if name == "NonZero" and not of_values.isdisjoint(inputs):
        selected.update(outputs)
    if places and name not in _ONLY_SIZES and (name != "ScatterND" or 0 in places):
        selected.update(outputs)
    if places or (name not in _ONLY_SIZES and not of_values.isdisjoint(inputs)):
        of_values.update(outputs)


def _may_have_selected(node: Any, places: list[int], tensors: dict[bytes, Any]) -> bool:
    """Whether these inputs of a node may be selected rows."""
    name, inputs = node.op_type.decode(errors="replace"), node.input
    if name == "Squeeze" and not any(inputs[1:]):  # how many dimensions are left depends on the number of rows
        return False
    bounds = [each for each in (*inputs[1:3], *inputs[4:]) if each] if name == "Slice" else []
    if not all(_is_counted_from_start(tensors.get(each)) for each in bounds):
        return False
    return name in _OF_SELECTED_INPUTS or (name in _OF_SELECTED_ROWS and places == [0])


def _is_counted_from_start(tensor: Any) -> bool:
    """Whether a constant of integers holds none below 0, which would count from an end that more rows move."""
    if tensor is None or tensor.data_type not in _SIGN_BYTES or not tensor.raw_data:
        return False
    return all(byte < _NEGATIVE for byte in tensor.raw_data[_SIGN_BYTES[tensor.data_type]])


def has_selections(model: Any) -> bool:
    """Whether rows are selected by the noise."""
    return any(node.op_type == b"NonZero" for node in model.graph.node)


def selecting(model: Any, *, everything: bool) -> bytes:
    """A model's content where each NonZero selects everything, or nothing. `model` is changed for it."""
    graph = model.graph
    nodes, prefix = list(graph.node), _free_prefix(graph)
    del graph.node[:]
    for number, node in enumerate(nodes):
        if node.op_type == b"NonZero":
            # Of the truth t that some x equals itself, as good for NaN: t or not t, t and not t.
            truth, untruth, whole = (b"%s%d%s" % (prefix, number, suffix) for suffix in (b"a", b"b", b"c"))
            graph.node.add(op_type=b"Equal", input=[node.input[0], node.input[0]], output=[truth])
            graph.node.add(op_type=b"Not", input=[truth], output=[untruth])
            graph.node.add(op_type=b"Or" if everything else b"And", input=[truth, untruth], output=[whole])
            node.input[0] = whole
        graph.node.append(node)
    content: bytes = model.SerializeToString()
    return content


def _free_prefix(graph: Any) -> bytes:
    """One that no value's name has."""
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    names += [each.name for each in (*graph.initializer, *graph.input)]
    prefix = b"selected"
    while any(name.startswith(prefix) for name in names):
        prefix += b"_"
    return prefix


def quoted(name: bytes) -> str:
    """A name from a file, for people: short, printable, on one line."""
    return repr(name[:64].decode(errors="replace"))
