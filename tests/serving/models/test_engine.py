import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bgan.serving.errors import ModelFileError
from bgan.serving.models.engine import load_engine

NAMES = ("mlp-dbn", "mlp-sbn", "cnn-sbn")
laws = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def engines(models):
    return {name: load_engine(models / f"{name}.onnx") for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tiled", [False, True])
@laws
@given(
    seed=st.integers(0, 2**63 - 1),
    first=st.integers(0, 2**63 - 500),
    sizes=st.lists(st.integers(1, 80), min_size=1, max_size=5),
)
def test_any_split_gives_the_same_bits(engines, name, tiled, seed, first, sizes):
    engine = engines[name]
    engine.tile_rows = 16 if tiled else None
    try:
        whole = engine.sample(seed, first, sum(sizes), with_probabilities=True)
        index, pieces = first, []
        for size in sizes:
            pieces.append(engine.sample(seed, index, size, with_probabilities=True))
            index += size
    finally:
        engine.tile_rows = None
    assert b"".join(piece.packed_images for piece in pieces) == whole.packed_images
    assert b"".join(piece.probabilities for piece in pieces) == whole.probabilities


@pytest.mark.parametrize("name", NAMES)
def test_images_are_the_graphs_of_the_noise(engines, models, name):
    engine = engines[name]
    batch = engine.sample(7, 100, 33, with_probabilities=True)
    latents, uniforms, *_ = engine.noise.draw(7, 100, 33)
    feeds = {"latents": latents}
    if uniforms is not None:
        feeds["uniforms"] = uniforms.reshape(33, *engine.image_shape)
    images, probabilities = onnxruntime.InferenceSession(models / f"{name}.onnx").run(None, feeds)
    assert batch.packed_images == np.packbits(images.reshape(33, -1), axis=1).tobytes()
    np.testing.assert_allclose(
        np.frombuffer(batch.probabilities, "<f4").reshape(probabilities.shape), probabilities, atol=1e-6
    )
    assert 0.01 < images.mean() < 0.99


def test_a_logit_whose_sigmoid_onnxruntime_rounds_above_1_has_the_probability_1(models, tmp_path):
    model = onnx.load(models / "mlp-dbn.onnx")
    (sigmoid,) = (node for node in model.graph.node if node.op_type == "Sigmoid")
    logits = sigmoid.input[0]
    for name, value in (("no", 0), ("logit", 17.844)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    sigmoid.input[0] = "constant"
    place = list(model.graph.node).index(sigmoid)
    model.graph.node.insert(place, onnx.helper.make_node("Add", ["zeros", "logit"], ["constant"]))
    model.graph.node.insert(place, onnx.helper.make_node("Mul", [logits, "no"], ["zeros"]))
    onnx.save(model, tmp_path / "saturated.onnx")
    batch = load_engine(tmp_path / "saturated.onnx").sample(1, 0, 5, with_probabilities=True)
    assert set(np.frombuffer(batch.probabilities, "<f4")) == {np.float32(1)}


def test_one_thread_gives_the_bits_of_two(models):
    for name in NAMES:
        one, two = (load_engine(models / f"{name}.onnx", threads=threads) for threads in (1, 2))
        assert one.sample(1, 0, 300).packed_images == two.sample(1, 0, 300).packed_images


def test_a_model_whose_rows_depend_on_the_batch_runs_in_tiles(models, tmp_path):
    """The mean over the batch, added to every latent, is what no export would ever do."""
    model = onnx.load(models / "mlp-dbn.onnx")
    first = model.graph.node[0]
    axes = onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [0])
    model.graph.initializer.append(axes)
    mean = onnx.helper.make_node("ReduceMean", ["latents", "axes"], ["batch_mean"], keepdims=1)
    total = onnx.helper.make_node("Add", ["latents", "batch_mean"], ["mixed"])
    first.input[0] = "mixed"
    model.graph.node.insert(0, total)
    model.graph.node.insert(0, mean)
    onnx.save(model, tmp_path / "mixing.onnx")

    engine = load_engine(tmp_path / "mixing.onnx")
    assert engine.tile_rows == 64
    whole = engine.sample(1, 30, 100)
    pieces = [engine.sample(1, 30, 41), engine.sample(1, 71, 59)]
    assert b"".join(piece.packed_images for piece in pieces) == whole.packed_images


def test_the_revision_changes_with_the_file(engines, models, tmp_path):
    revisions = {engine.revision for engine in engines.values()}
    assert len(revisions) == len(NAMES)
    copy = tmp_path / "copy.onnx"
    copy.write_bytes((models / "mlp-dbn.onnx").read_bytes())
    assert load_engine(copy).revision == engines["mlp-dbn"].revision


def _with_manifest(source, target, change):
    model = onnx.load(source)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    metadata["bgan.model"] = change(metadata["bgan.model"])
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, target)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace('"latentSize": 128', '"latentSize": 64'), "the input latents"),
        (lambda text: text.replace('"height": 28', '"height": 27'), "the output images"),
        (lambda text: text.replace("BINARIZATION_THRESHOLD", "BINARIZATION_BERNOULLI"), "the inputs"),
        (lambda text: text.replace('"mlp-dbn"', '"a/b"'), "the name 'a/b'"),
        (lambda text: text.replace('"latentSize": 128,', ""), "without a latent size"),
        (lambda text: "{", "cannot be read"),
    ],
)
def test_a_manifest_that_disagrees_with_the_graph_is_refused(models, tmp_path, change, says):
    path = tmp_path / "x.onnx"
    _with_manifest(models / "mlp-dbn.onnx", path, change)
    with pytest.raises(ModelFileError) as caught:
        load_engine(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_graph_that_cannot_be_run_is_refused(models, tmp_path):
    model = onnx.load(models / "mlp-dbn.onnx")
    more = onnx.helper.make_tensor("one_row_more", onnx.TensorProto.INT64, [2], [1, 0])
    model.graph.initializer.append(more)
    model.graph.node[0].input[0] = "reshaped"
    for kind, inputs, output in (
        ("Reshape", ["latents", "too_many"], "reshaped"),
        ("Add", ["shape", "one_row_more"], "too_many"),
        ("Shape", ["latents"], "shape"),
    ):
        model.graph.node.insert(0, onnx.helper.make_node(kind, inputs, [output]))
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(ModelFileError, match=r"x\.onnx cannot be run"):
        load_engine(tmp_path / "x.onnx")


def test_a_model_may_be_called_otherwise_than_in_its_manifest(models):
    engine = load_engine(models / "mlp-dbn.onnx", name="digits", version=3)
    assert str(engine) == f"digits version 3, revision {engine.revision}"
    assert load_engine(models / "mlp-dbn.onnx").revision == engine.revision
