"""Model files that are not to be loaded, each a real ONNX file; and what callers learn of a failure inside."""

import json
import os
import subprocess
import sys
import time
import tracemalloc
from contextlib import suppress

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException

from bgan.clients import RetryPolicy, SamplingClient, SamplingError
from bgan.serving.errors import ModelFileError
from bgan.serving.models import model_check
from bgan.serving.models.engine import load_engine
from bgan.serving.models.model_check import OPSETS
from tests.kit.cli import bgan
from tests.kit.servers import server

ONCE = RetryPolicy(attempts=1)
LATENTS, PIXELS = 8, 16
MANIFEST = {
    "name": "crafted",
    "neuron": "NEURON_DETERMINISTIC",
    "binarization": "BINARIZATION_THRESHOLD",
    "latentSize": LATENTS,
    "imageShape": {"channels": 1, "height": 4, "width": 4},
}


def make(*, nodes=(), initializers=(), opset=20, manifest=None, weights=None, last="wide", domains=()):
    """A small generator: latents @ weights, and what `nodes` make of "wide", binarized."""
    if weights is None:
        values = np.random.default_rng(0).standard_normal((LATENTS, PIXELS)).astype(np.float32)
        weights = numpy_helper.from_array(values, "weights")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["latents", "weights"], ["wide"]),
            *nodes,
            helper.make_node("Sigmoid", [last], ["flat"]),
            helper.make_node("Reshape", ["flat", "shape"], ["probabilities"]),
            helper.make_node("Greater", ["probabilities", "half"], ["fires"]),
            helper.make_node("Cast", ["fires"], ["images"], to=TensorProto.UINT8),
        ],
        "crafted",
        [helper.make_tensor_value_info("latents", TensorProto.FLOAT, ["batch", LATENTS])],
        [
            helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 1, 4, 4]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 1, 4, 4]),
        ],
        [
            weights,
            numpy_helper.from_array(np.array([-1, 1, 4, 4]), "shape"),
            numpy_helper.from_array(np.array(0.5, np.float32), "half"),
            *initializers,
        ],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    model.metadata_props.add(key="bgan.model", value=json.dumps({**MANIFEST, **(manifest or {})}))
    return model


def _branch(*inner, outputs=("there",)):
    """A node that runs one of two graphs, both of `inner`."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(list(inner), "inner", [], values)
    yes = numpy_helper.from_array(np.array(True), "yes")
    node = helper.make_node("If", ["yes"], ["branched"], then_branch=graph, else_branch=graph)
    return {"nodes": [node], "initializers": [yes], "last": "branched"}


def _external(name="weights"):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[LATENTS, PIXELS])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def _unmarked(name="weights"):
    """External data that does not say so."""
    tensor = _external(name)
    tensor.ClearField("data_location")
    return tensor


def _with_function():
    node = helper.make_node("Twice", ["wide"], ["twice"], domain="own")
    model = make(nodes=[node], last="twice", domains=["own"])
    body = helper.make_node("Add", ["x", "x"], ["y"])
    model.functions.append(
        helper.make_function("own", "Twice", ["x"], ["y"], [body], [helper.make_opsetid("", 20)])
    )
    return model


def _with_sparse():
    model = make()
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    places = helper.make_tensor("places", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [1_000_000, 1_000_000]))
    return model


def _two_opsets():
    model = make()
    model.opset_import.append(helper.make_opsetid("ai.onnx", 7))
    return model


def _with_training():
    model = make()
    model.training_info.add()
    return model


def _constant(tensor):
    return helper.make_node("Constant", [], ["there"], value=tensor)


def _huge():
    return TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=[2**20, 2**20], raw_data=b"1234")


def _negative():
    return TensorProto(name="negative", data_type=TensorProto.FLOAT, dims=[-1], raw_data=b"1234")


def _sparse_constant():
    values = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    places = helper.make_tensor("p", TensorProto.INT64, [1], [0])
    tensor = helper.make_sparse_tensor(values, places, [2**40])
    return helper.make_node("Constant", [], ["there"], sparse_value=tensor)


def _loop():
    times = numpy_helper.from_array(np.array(2**62), "times")
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
    )
    return make(nodes=[helper.make_node("Loop", ["times", ""], [], body=body)], initializers=[times])


def _dropout():
    inputs = [numpy_helper.from_array(np.array(0.5, np.float32), "ratio")]
    inputs.append(numpy_helper.from_array(np.array(True), "training"))
    node = helper.make_node("Dropout", ["wide", "ratio", "training"], ["w"])
    return make(nodes=[node], initializers=inputs, last="w")


def _batch_norm():
    ones = [numpy_helper.from_array(np.ones(PIXELS, np.float32), name) for name in "abcd"]
    node = helper.make_node("BatchNormalization", ["wide", *"abcd"], ["w", "m", "v"], training_mode=1)
    return make(nodes=[node], initializers=ones, last="w")


def _graph_in_a_harmless_place():
    node = helper.make_node("Relu", ["wide"], ["w"])
    node.attribute.append(helper.make_attribute("mode", make().graph))
    return make(nodes=[node], last="w")


def _size_of_noise():
    nodes = [
        helper.make_node("Cast", ["latents"], ["whole"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["whole"], ["size"], keepdims=0),
        helper.make_node("Expand", ["wide", "size"], ["w"]),
    ]
    return make(nodes=nodes, last="w")


def _many_dimensions():
    return TensorProto(name="many", data_type=TensorProto.FLOAT, dims=[2**62] * 50_000, raw_data=b"1234")


HOSTILE = {
    "external": (lambda: make(weights=_external()), "keeps data in other files"),
    "unmarked": (lambda: make(weights=_unmarked()), "keeps data in other files"),
    "external-constant": (lambda: make(nodes=[_constant(_external())]), "keeps data in other files"),
    "inside": (lambda: make(**_branch(_constant(_external()))), "uses the operator 'If'"),
    "domain": (
        lambda: make(nodes=[helper.make_node("Gelu", ["wide"], ["w"], domain="com.microsoft")], last="w"),
        "uses the operator 'Gelu' of 'com.microsoft'; only ONNX's own are run",
    ),
    "ml": (
        lambda: make(nodes=[helper.make_node("Scaler", ["wide"], ["w"], domain="ai.onnx.ml")], last="w"),
        "only ONNX's own are run",
    ),
    "function": (_with_function, "has functions of its own"),
    "training": (_with_training, "has training information"),
    "old": (lambda: make(opset=12), "is of the opset 12; export it with one from 13 to"),
    "new": (lambda: make(opset=99), "is of the opset 99"),
    "two": (_two_opsets, "is of the opset 20, 7"),
    "sparse": (_with_sparse, "has sparse initializers"),
    "sparse-constant": (
        lambda: make(nodes=[_sparse_constant()]),
        "has a sparse tensor in the operator 'Constant'",
    ),
    "huge": (lambda: make(initializers=[_huge()]), "for which it holds too little data"),
    "negative": (lambda: make(initializers=[_negative()]), "for which it holds too little data"),
    "loop": (_loop, "uses the operator 'Loop'; only feed-forward ones are run, which draw no noise, run no loop"),
    "random": (
        lambda: make(nodes=[helper.make_node("RandomNormalLike", ["wide"], ["w"])], last="w"),
        "uses the operator 'RandomNormalLike'; only feed-forward ones are run, which draw no noise",
    ),
    "dropout": (_dropout, "uses Dropout in training mode, which is random; export it in eval mode"),
    "training-mode": (_batch_norm, "uses 'BatchNormalization' in training mode"),
    "recurrent": (
        lambda: make(nodes=[helper.make_node("LSTM", ["wide", "wide", "wide"], ["w"], hidden_size=1)], last="w"),
        "uses the operator 'LSTM'; only feed-forward ones are run",
    ),
    "sequence": (
        lambda: make(nodes=[helper.make_node("SplitToSequence", ["wide"], ["w"])], last="w"),
        "uses the operator 'SplitToSequence'",
    ),
    "attribute": (
        lambda: make(nodes=[helper.make_node("Relu", ["wide"], ["w"], unheard_of=1)], last="w"),
        "has the attribute 'unheard_of' in the operator 'Relu'",
    ),
    "graph-attribute": (_graph_in_a_harmless_place, "has the attribute 'mode' in the operator 'Relu'"),
    "size": (_size_of_noise, "has a size that depends on the noise, in the operator 'Expand'"),
    "unsorted": (
        lambda: make(nodes=[helper.make_node("Add", ["wide", "later"], ["w"])], last="w"),
        "uses the value 'later' before it is computed",
    ),
    "dimensions": (lambda: make(initializers=[_many_dimensions()]), "has a tensor of 50000 dimensions"),
    "operators": (
        lambda: make(nodes=[helper.make_node("Relu", ["wide"], [f"w{i}"]) for i in range(10_001)]),
        "operators; 10000 are allowed",
    ),
    "tensors": (
        lambda: make(initializers=[numpy_helper.from_array(np.zeros(1), f"t{i}") for i in range(10_001)]),
        "tensors; 10000 are allowed",
    ),
    "counts of no class": (
        lambda: make(manifest={"classCounts": ["5"]}),
        "class counts are not one for each class",
    ),
    "manifest": (
        lambda: make(manifest={"bgan_version": "x" * 70_000}),
        "has a manifest of 70",
    ),
    "wide": (
        lambda: make(manifest={"imageShape": {"channels": 1, "height": 100000, "width": 100000}}),
        "has latents or images of more than 1048576 values",
    ),
}


def _refused(path, **arguments):
    with pytest.raises(ModelFileError) as caught:
        load_engine(path, **arguments)
    return str(caught.value)


def _outputs(*, probability="flat", images="fires"):
    """A model whose last values are other ones than the probabilities and what exceeds their threshold."""
    model = make(
        nodes=[
            helper.make_node("Exp", ["wide"], ["large"]),
            helper.make_node("Log", ["wide"], ["nan"]),
            helper.make_node("Relu", ["large"], ["w"]),
        ],
        initializers=[numpy_helper.from_array(np.array(2, np.uint8), "two")],
    )
    *_, reshape, greater, cast = model.graph.node
    reshape.input[0] = probability
    greater.op_type = {"fires": "Greater", "inverted": "Less"}.get(images, "Greater")
    if images == "twos":
        cast.output[0] = "ones"
        model.graph.node.append(helper.make_node("Mul", ["ones", "two"], ["images"]))
    return model


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ({"probability": "large"}, "gives probabilities that are not from 0 to 1"),
        ({"probability": "nan"}, "gives probabilities that are not from 0 to 1"),
        ({"images": "inverted"}, "gives images whose pixels are not on where their probability exceeds 0.5"),
        ({"images": "twos"}, "gives images with other values than 0 and 1"),
    ],
)
def test_models_that_do_not_keep_the_contract_are_refused(tmp_path, outputs, says):
    assert says in _refused(_write(tmp_path / "x.onnx", _outputs(**outputs)))


def test_uniforms_must_decide(tmp_path, models):
    model = onnx.load(models / "mlp-sbn.onnx")
    (greater,) = [node for node in model.graph.node if node.op_type == "Greater"]
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    model.graph.node.insert(0, helper.make_node("Mul", ["uniforms", "half"], ["other"]))
    greater.input[1] = "other"
    says = "gives images whose pixels are not on where their probability exceeds its uniform"
    assert says in _refused(_write(tmp_path / "x.onnx", model))


def test_the_probe_finds_what_the_list_of_operators_would_let_in(tmp_path, monkeypatch):
    """An operator that is random, whatever it is called; here the list is made to let one in."""
    monkeypatch.setattr(model_check, "OPERATORS", model_check.OPERATORS | {"RandomNormalLike"})
    nodes = [helper.make_node("RandomNormalLike", ["wide"], ["noise"])]
    path = _write(tmp_path / "x.onnx", make(nodes=nodes, last="noise"))
    assert "gives other images when the same are asked for again" in _refused(path)


def test_the_attributes_are_those_that_the_operators_have():
    """Of every opset that is taken, but for what is random, another graph, sparse or text."""
    names = set()
    for operator in model_check.OPERATORS:
        for opset in OPSETS:
            with suppress(onnx.defs.SchemaError):  # it came with a later one
                names |= set(onnx.defs.get_schema(operator, opset, "").attributes)
    assert names - model_check.ATTRIBUTES == {"seed", "sparse_value", "value_string", "value_strings"}
    assert names >= model_check.ATTRIBUTES


def test_a_small_file_is_read_with_little_memory(tmp_path):
    """Not with a buffer of the largest file that would be taken."""
    path = _write(tmp_path / "x.onnx", make())
    tracemalloc.start()
    try:
        model_check.read_model_file(path, 2**31 - 1)
        assert tracemalloc.get_traced_memory()[1] < 10 * path.stat().st_size + 10_000
    finally:
        tracemalloc.stop()


def _write(path, model):
    path.write_bytes(model.SerializeToString())
    return path


def test_what_is_crafted_here_is_a_good_model_but_for_what_makes_it_hostile(tmp_path):
    size = [helper.make_node("Shape", ["wide"], ["s"]), helper.make_node("Expand", ["wide", "s"], ["w"])]
    harmless = {
        "plain": {},
        "dropout": {"nodes": [helper.make_node("Dropout", ["wide"], ["w"], seed=3)], "last": "w"},
        "size": {"nodes": size, "last": "w"},
    }
    for name, arguments in harmless.items():
        engine = load_engine(_write(tmp_path / f"{name}.onnx", make(**arguments)))
        assert len(engine.sample(1, 0, 5).packed_images) == 10


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_before_they_are_loaded(tmp_path, name):
    build, says = HOSTILE[name]
    path = _write(tmp_path / "hostile.onnx", build())
    text = _refused(path)
    assert says in text
    assert text.startswith(f"{path} ")
    assert "\n" not in text
    assert len(text) < 500


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_that_is_taken_can_be_run(tmp_path, opset):
    path = _write(tmp_path / "x.onnx", make(opset=opset))
    assert len(load_engine(path).sample(1, 0, 3).packed_images) == 6


def test_files_are_bounded_in_size(tmp_path):
    path = _write(tmp_path / "x.onnx", make())
    size = path.stat().st_size
    assert load_engine(path, max_bytes=size).image_shape == (1, 4, 4)
    assert f"is larger than {size - 1} bytes; --max-model-bytes allows more" in _refused(path, max_bytes=size - 1)
    with path.open("r+b") as file:
        file.truncate(2**40)  # a hole: were it read, memory would be full
    assert "is larger than" in _refused(path)


def test_files_of_another_format_are_refused_whatever_else_they_are(tmp_path):
    path = tmp_path / "x.onnx"
    # Behind the tag and length of a field that no one knows: to protobuf it is a good model all the same.
    content = b"\xc2\x3e\x05" + b"aORTM" + make().SerializeToString()
    onnx.load_from_string(content)
    path.write_bytes(content)
    assert "is in onnxruntime's own format" in _refused(path)
    path.write_bytes(b"\0\0\0\0ORTM" + bytes(100))
    assert "is in onnxruntime's own format" in _refused(path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x00", b"not a model", b"\x3a\xff\xff\xff\xff\x0f"])
def test_files_that_are_no_models_are_refused(tmp_path, content):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    assert "is no ONNX model" in _refused(path)


def _field(number, content):
    """A field of bytes as protobuf writes it, for what the package onnx does not build."""
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size % 128 + 128]), size // 128
    return bytes([8 * number + 2]) + length + bytes([size]) + content


def test_graphs_that_nest_without_end_are_refused(tmp_path):
    node = b""
    for _ in range(200):
        graph = _field(1, node)
        node = _field(5, _field(6, graph))  # an attribute that is a graph
    path = tmp_path / "x.onnx"
    path.write_bytes(make().SerializeToString() + _field(7, _field(1, node)))
    assert "uses the operator ''; only feed-forward ones are run" in _refused(path)


def test_refused_files_are_listed_and_logged_and_replace_nothing(tmp_path):
    _write(tmp_path / "good.onnx", make(manifest={"name": "good"}))
    _write(tmp_path / "external.onnx", make(weights=_external()))
    (tmp_path / "broken.onnx").write_bytes(make().SerializeToString()[:-40])
    with server(tmp_path, "--max-model-bytes", 100_000) as process:
        listed = bgan("models", "--server", process.target)
        assert "external cannot be served: external.onnx keeps data in other files" in listed.stderr
        assert "broken cannot be served: broken.onnx is no ONNX model" in listed.stderr
        assert str(tmp_path) not in listed.stdout + listed.stderr
        assert "external cannot be served: external.onnx keeps data in other files" in process.output()


def _fails_inside():
    """A model that is good for every latent of a stream; for larger ones it looks up what is not there."""
    nodes = [
        helper.make_node("ReduceMax", ["latents"], ["largest"], keepdims=0),
        helper.make_node("Floor", ["largest"], ["floor"]),
        helper.make_node("Cast", ["floor"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["found"]),
        helper.make_node("Add", ["wide", "found"], ["sum"]),
    ]
    table = numpy_helper.from_array(np.zeros(6, np.float32), "table")
    return make(nodes=nodes, initializers=[table], last="sum", manifest={"name": "fails"})


def test_a_failure_inside_is_for_the_log_alone(tmp_path):
    _write(tmp_path / "fails.onnx", _fails_inside())
    with server(tmp_path) as process:
        with SamplingClient(process.target, retry=ONCE) as client:
            assert sum(map(len, client.sample_binary_images(image_count=5, seed=1))) == 5
        tensor = triton.InferInput("latents", [1, LATENTS], "FP32")
        tensor.set_data_from_numpy(np.full((1, LATENTS), 1000, np.float32))
        with triton.InferenceServerClient(process.target) as client:
            with pytest.raises(InferenceServerException) as caught:
                client.infer("fails", [tensor])
            assert caught.value.status() == "StatusCode.INTERNAL"
            assert caught.value.message() == "internal error; the server's log says more"
            assert client.is_server_live()
        assert "Gather" in process.output()  # the whole of it
        (tmp_path / "fails.onnx").unlink()
        with SamplingClient(process.target, retry=ONCE) as client:
            for model in ("../secret", "/etc/passwd", "fails\n", "x" * 1000):
                with pytest.raises(SamplingError) as failure:
                    client.get_model(model)
                assert str(tmp_path) not in str(failure.value)


def test_what_onnxruntime_says_of_a_broken_file_is_for_the_log_alone(tmp_path):
    _write(tmp_path / "good.onnx", make(manifest={"name": "good"}))
    model = make(nodes=[helper.make_node("MatMul", ["wide", "half"], ["w"])], last="w")
    _write(tmp_path / "odd.onnx", model)
    with server(tmp_path) as process:
        with SamplingClient(process.target) as client:
            (failure,) = client.list_models().failures
        assert failure.reason == "odd.onnx is no ONNX model that onnxruntime can load"
        assert "ShapeInferenceError" in process.output()


def _outward(pids):
    """The sockets of processes that are connected, or about to be, to somewhere else than this machine."""
    inodes = set()
    for pid in pids:
        for link in os.scandir(f"/proc/{pid}/fd"):
            try:
                inodes.add(os.readlink(link.path))
            except OSError:
                continue
    found = []
    for name in ("tcp", "tcp6", "udp", "udp6"):
        with open(f"/proc/net/{name}") as table:
            for line in list(table)[1:]:
                fields = line.split()
                address, port = fields[2].split(":")
                is_local = (
                    set(address) == {"0"} or address.endswith("0100007F") or address == "0" * 24 + "01000000"
                )
                if f"socket:[{fields[9]}]" in inodes and int(port, 16) and not is_local:
                    found.append((name, fields[2]))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_server_opens_no_connection_to_anywhere(tmp_path):
    _write(tmp_path / "x.onnx", make())
    with server(tmp_path) as process, SamplingClient(process.target) as client:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            sum(map(len, client.sample_binary_images(image_count=100, seed=1)))
            assert _outward([process.process.pid]) == []


@pytest.mark.parametrize(
    "module", ["bgan.serving.models.engine", "bgan.serving.models.manifest", "bgan.serving.server.server"]
)
def test_telemetry_is_off_before_onnxruntime_is_loaded(module):
    code = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime': print(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"import {module}\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["1"]


def test_the_format_read_here_is_that_of_onnx():
    """The numbers of the fields, against those of the package onnx."""
    theirs = {"Model": "ModelProto", "Graph": "GraphProto", "Node": "NodeProto", "Tensor": "TensorProto"}
    theirs |= {"Attribute": "AttributeProto", "OperatorSet": "OperatorSetIdProto"}
    theirs |= {"Entry": "StringStringEntryProto", "Value": "ValueInfoProto"}
    for message, name in theirs.items():
        descriptor = getattr(onnx, name).DESCRIPTOR
        for field, (number, _) in model_check._MESSAGES[message].items():
            assert descriptor.fields_by_name[field].number == number, (message, field)
