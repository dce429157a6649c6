import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf import json_format

from bgan.serving.models.engine import load_engine
from bgan.serving.models.noise import NoiseLayout
from bgan.trainer.common.errors import ConfigError, ExportError
from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.exporting import integer_export
from bgan.trainer.exporting.exporter import export_run
from bgan.trainer.exporting.integer import SUM_LIMIT, WEIGHT_LIMIT, outputs, quantize
from bgan.trainer.exporting.integer_export import to_integers
from bgan.trainer.exporting.integer_reference import reference_images
from bgan.trainer.exporting.products import Product
from bgan.trainer.exporting.stream_noise import first_noise
from bgan.trainer.networks.generators import build_generator
from bgan.trainer.training.checkpoint import checkpoint_files, load_checkpoint, save_checkpoint
from bgan.v1 import model_pb2
from tests.kit.cli import bgan, error_line
from tests.kit.models import make_run

SLOPE = 1.3
GENERATORS = [
    ("mlp", (1, 8, 8), 0, False),
    ("mlp", (3, 5, 7), 4, True),
    ("cnn", (1, 4, 12), 0, True),
    ("cnn", (3, 10, 17), 3, False),
    ("doubling-cnn", (1, 28, 28), 0, False),
    ("doubling-cnn", (3, 13, 6), 3, True),
]


@pytest.fixture(autouse=True)
def _few_rows(monkeypatch):
    monkeypatch.setattr(integer_export, "_CALIBRATION_ROWS", 200)
    monkeypatch.setattr(integer_export, "_PROOF_ROWS", 1024)


def random_generator(network, shape, class_count, latent_size=32):
    torch.manual_seed(0)
    generator = build_generator(network, ImageShape(*shape), latent_size, class_count=class_count).eval()
    for layer in generator.layers:
        if getattr(layer, "bias", None) is not None:
            torch.nn.init.normal_(layer.bias, std=0.3)
    return generator


def inputs_of(generator, rows, *, stochastic):
    random = np.random.default_rng(5)
    inputs = {"latents": random.standard_normal((rows, generator.latent_size), np.float32)}
    if stochastic:
        inputs["uniforms"] = random.random((rows, *generator.image_shape), np.float32)
    if generator.class_count:
        inputs["labels"] = random.integers(0, generator.class_count, rows)
    return inputs


@pytest.mark.parametrize(("network", "shape", "classes", "stochastic"), GENERATORS)
def test_the_graph_has_the_bits_of_numpys_integers_and_nearly_those_of_floats(network, shape, classes, stochastic):
    generator = random_generator(network, shape, classes)
    model, integers = to_integers(generator, SLOPE, stochastic=stochastic)
    onnx.checker.check_model(model, full_check=True)
    inputs = inputs_of(generator, 150, stochastic=stochastic)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    images, probabilities = session.run(["images", "probabilities"], inputs)
    np.testing.assert_array_equal(images, reference_images(integers, **inputs))

    labels = torch.from_numpy(inputs["labels"]) if classes else None
    with torch.no_grad():
        floats = torch.sigmoid(SLOPE * generator(torch.from_numpy(inputs["latents"]), labels)).numpy()
    threshold = inputs.get("uniforms", 0.5)
    assert (images != (floats > threshold)).mean() < 0.02
    assert abs((probabilities - floats).mean()) < 0.002
    assert np.abs(probabilities - floats).mean() < 0.02
    is_clear = np.abs(probabilities - threshold) > 1e-4
    np.testing.assert_array_equal(images[is_clear], (probabilities > threshold)[is_clear])
    assert is_clear.mean() > 0.99
    for place, layer in enumerate(integers.layers):
        assert np.abs(layer.weight).max() == WEIGHT_LIMIT, place
        assert layer.largest_sum < SUM_LIMIT


def test_rows_do_not_depend_on_the_batch_nor_on_optimizations_nor_threads():
    generator = random_generator("doubling-cnn", (1, 12, 12), 0)
    model, _ = to_integers(generator, SLOPE, stochastic=False)
    latents = inputs_of(generator, 130, stochastic=False)["latents"]
    found = set()
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        for threads, batch in ((1, 130), (2, 130), (1, 1), (2, 17)):
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(model.SerializeToString(), options)
            runs = (session.run(["images"], {"latents": latents[i : i + batch]})[0] for i in range(0, 130, batch))
            found.add(b"".join(images.tobytes() for images in runs))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("latent_size", "shape", "stochastic", "counts", "inner"),
    [
        (5, (1, 60, 60), True, (), 0),
        (128, (1, 28, 28), False, (), 4),
        (13, (3, 3, 5), True, (), 7),
        (6, (1, 4, 3), True, (7, 0, 2**32 - 8), 0),
        (6, (1, 4, 3), True, (7, 0, 2**32 - 8), 3),
        (9, (1, 2, 2), False, (1, 1), 0),
    ],
)
def test_the_noise_is_that_of_the_server(latent_size, shape, stochastic, counts, inner):
    uniforms = int(np.prod(shape)) if stochastic else 0
    kinds = {"class_counts": counts, "inner_count": inner}
    layout = NoiseLayout(latent_size, uniform_count=uniforms, class_count=len(counts), **kinds)
    latents, expected_uniforms, labels, inner_uniforms = layout.draw(0, 0, 300)
    parts = list(first_noise(300, latent_size, ImageShape(*shape), stochastic=stochastic, **kinds))
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    expected = {"latents": latents}
    if stochastic:
        expected["uniforms"] = expected_uniforms.reshape(300, *shape)
    if counts:
        expected["labels"] = labels
    if inner:
        expected["inner_uniforms"] = inner_uniforms
    assert sorted(found) == sorted(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype


@pytest.mark.parametrize(
    "settings",
    [
        {"neuron": "dbn", "shape": (1, 6, 6)},
        {"neuron": "sbn", "slope_rate": 3.0, "steps": 11, "shape": (3, 5, 7)},
        {"neuron": "dbn", "network": "cnn", "conditional": True, "classes": ("a", "b", "c"), "shape": (1, 9, 12)},
        {
            "neuron": "sbn",
            "network": "doubling-cnn",
            "conditional": True,
            "classes": ("a", "b"),
            "shape": (3, 13, 6),
        },
        {"neuron": "real", "generator_norm": "affine", "shape": (1, 5, 5)},
    ],
)
def test_an_integer_file_is_proved_and_served_with_the_images_that_it_promises(tmp_path, settings):
    run = make_run(tmp_path / "run", **settings)
    result = export_run(run, tmp_path / "models", arithmetic="integer")
    assert (result.rows, result.bits) == (1024, 1024 * int(np.prod(settings["shape"])))
    assert result.differing_bits < 0.02 * result.bits
    assert (run.folder / "run.onnx").read_bytes() == result.path.read_bytes()
    metadata = {each.key: each.value for each in onnx.load(result.path).metadata_props}
    manifest = json_format.Parse(metadata["bgan.model"], model_pb2.Model())
    assert manifest.arithmetic == model_pb2.ARITHMETIC_INTEGER
    engine = load_engine(result.path)  # which compares the digest
    assert engine.tile_rows is None
    assert engine.manifest.images_sha256 == manifest.images_sha256


@pytest.mark.usefixtures("exporting")
def test_a_float_file_says_nothing_of_arithmetic(tmp_path):
    run = make_run(tmp_path / "run", shape=(1, 4, 4))
    content = export_run(run, tmp_path, arithmetic="float").path.read_bytes()
    assert b"arithmetic" not in content
    assert b"imagesSha256" not in content
    with pytest.raises(ConfigError, match="choose one of float, integer"):
        export_run(run, tmp_path, arithmetic="fixed")
    with pytest.raises(ConfigError, match="leave out --graph or --arithmetic"):
        export_run(run, tmp_path, arithmetic="integer", graph="plain")


def quantized(*products, latent_size):
    latents = np.random.default_rng(1).standard_normal((200, latent_size), np.float32)
    return quantize(products, latents, None, ImageShape(1, 1, products[-1].weight.shape[1]), stochastic=False)


def test_constant_activations_are_refused():
    dead = Product(np.ones((4, 3)), np.full(3, -1000.0))
    last = Product(np.ones((3, 2)), np.zeros(2))
    with pytest.raises(ExportError, match=r"layer 1 gives 0 for whatever latents.*--arithmetic float"):
        quantized(dead, last, latent_size=4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value):
    first = Product(np.ones((4, 3)), np.zeros(3))
    last = Product(np.full((3, 2), value), np.zeros(2))
    with pytest.raises(ExportError, match="layer 2 has weights that are not finite"):
        quantized(first, last, latent_size=4)


def test_sums_that_might_be_inexact_are_refused():
    wide = Product(np.ones((1100, 3)), np.zeros(3))
    last = Product(np.ones((3, 2)), np.zeros(2))
    with pytest.raises(ExportError, match=r"layer 1 may add up to 17,671,500.*1100 inputs.*--arithmetic float"):
        quantized(wide, last, latent_size=1100)


@pytest.mark.parametrize("share", [1e-3, 1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize("stochastic", [False, True])
def test_columns_that_hardly_matter_are_rounded_and_not_refused(share, stochastic):
    """What makes cutting rounding, and the middle of the table, are large beside their sums."""
    random = np.random.default_rng(3)
    first = Product(random.standard_normal((4, 3)) * [1, share, 1], np.array([0.1, 0, 0]))
    last = Product(random.standard_normal((3, 2)) * [1, share], np.array([0.5, 0.01]))
    latents = random.standard_normal((500, 4), np.float32)
    integers = quantize([first, last], latents, None, ImageShape(1, 1, 2), stochastic=stochastic)
    uniforms = random.random((500, 1, 1, 2), np.float32)
    found = reference_images(integers, latents, uniforms=uniforms).reshape(500, 2)
    logits = np.maximum(latents @ first.weight + first.bias, 0) @ last.weight + last.bias
    expected = uniforms.reshape(500, 2) < 1 / (1 + np.exp(-logits)) if stochastic else logits > 0
    assert (found != expected).mean() < 0.02
    assert max(layer.largest_sum for layer in integers.layers) < SUM_LIMIT


BAD_RUNS = {
    "wide": (
        {"generator.layers.0.weight": 1.0},
        "layer 1 may add up to 17,67",
        "it has 1100 inputs; train with fewer, or export it with --arithmetic float",
    ),
    "dead": (
        {"generator.layers.1.weight": 0.0, "generator.layers.1.bias": -1.0},
        "layer 1 gives 0 for whatever latents",
        "train for longer, or export it with --arithmetic float",
    ),
    "diverged": ({"generator.layers.3.bias": np.nan}, "layer 2 has weights that are not finite", "diverged"),
}


@pytest.mark.parametrize(("tensors", "layer", "advice"), BAD_RUNS.values(), ids=BAD_RUNS)
@pytest.mark.usefixtures("exporting")
def test_a_run_that_has_no_exact_integers_is_refused_in_a_line(tmp_path, tensors, layer, advice):
    run = make_run(tmp_path / "runs" / "bad", shape=(1, 2, 2), latent_size=1100, steps=1)
    checkpoint = load_checkpoint(checkpoint_files(run.checkpoints)[0])
    for name, value in tensors.items():
        checkpoint.tensors[name].fill_(value)
    save_checkpoint(run.checkpoints, checkpoint.tensors, checkpoint.meta)
    command = ("export", "bad", "--runs-dir", tmp_path / "runs", "--models", tmp_path / "models")
    line = error_line(bgan(*command, "--arithmetic", "integer"))
    assert line.startswith(f"bgan: {layer}")
    assert line.endswith(advice)
    assert not list(tmp_path.rglob("*.onnx"))
    if "fewer" in advice:
        assert bgan(*command, "--arithmetic", "float").returncode == 0


def test_outputs_are_rounded_and_not_cut():
    first = Product(np.array([[1.0, 0.3]]), np.array([4.0, 3.0]))
    layer = quantized(first, Product(np.ones((2, 1)), np.zeros(1)), latent_size=1).layers[0]
    inputs = np.arange(256, dtype=np.uint8)[:, None]
    found = outputs(layer, inputs, None)
    exact = (inputs / 32 - 4) @ first.weight + first.bias
    unit = 1 / 32 / (layer.weight[0, 0] * layer.scale[0])
    kept = (found > 0) & (found < 255)
    assert abs((found - exact / unit)[kept].mean()) < 0.1


def three_layers(middle):
    """Products of 4 latents, a middle layer of 3 units that is rounded, and 2 outputs."""
    random = np.random.default_rng(7)
    first = Product(random.standard_normal((4, 6)), np.full(6, 1.0))
    return first, middle, Product(random.standard_normal((middle.weight.shape[1], 2)), np.zeros(2))


@pytest.mark.parametrize("bias", [0, -0.2, 3, 30, -30])
def test_offsets_of_rounded_products_are_made_by_constant_inputs(bias):
    random = np.random.default_rng(8)
    middle = Product(random.standard_normal((6, 3)), np.array([bias, 0.1, 0.2]))
    (_, layer, _) = quantized(*three_layers(middle), latent_size=4).layers
    assert not layer.offsets.any()
    (scale,) = layer.scale
    assert np.frexp(scale)[0] == 0.5  # a power of two
    inputs = random.integers(0, 256, (300, 6)).astype(np.uint8)
    sums = inputs.astype(int) @ layer.weight[:6] + layer.constants.astype(int) @ layer.weight[6:]
    halves = (sums * scale % 1 == 0.5).mean()
    assert halves > 0, "half to even is met"
    expected = [[min(max(round(float(value)), 0), 255) for value in row] for row in sums * scale]
    np.testing.assert_array_equal(outputs(layer, inputs, None), expected)


def test_each_channel_of_a_rounded_product_has_a_unit_of_its_own():
    """One channel is a thousandth of the others: it keeps its steps, and the next layer knows what they are."""
    random = np.random.default_rng(9)
    middle = Product(random.standard_normal((6, 3)) * [1, 1e-3, 1], np.array([0.1, 1e-4, 0]))
    first, middle, _ = three_layers(middle)
    last = Product(np.array([[1.0, 0], [0, 1e3], [-1, -1]]), np.zeros(2))
    integers = quantized(first, middle, last, latent_size=4)
    assert outputs(integers.layers[1], random.integers(0, 256, (999, 6)).astype(np.uint8), None).max(0).min() > 60
    latents = random.standard_normal((2000, 4), np.float32)
    hidden = np.maximum(latents @ first.weight + first.bias, 0)
    logits = np.maximum(hidden @ middle.weight + middle.bias, 0) @ last.weight
    assert (reference_images(integers, latents).reshape(-1, 2) != (logits > 0)).mean() < 0.02


def test_columns_without_weights_keep_their_biases():
    first = Product(np.array([[1.0, 0.0]]), np.array([0.0, 5.0]))
    last = Product(np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]), np.array([2.0, -2.0, 4.5]))
    layers = quantized(first, last, latent_size=1)
    latents = np.array([[-1.0], [0.25], [0.75]], np.float32)
    assert reference_images(layers, latents).reshape(3, 3).tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 1]]


def test_a_file_with_another_bit_than_the_reference_is_refused_and_not_left(tmp_path, monkeypatch):
    true = integer_export.integer_graph

    def wrong(integers):
        model = true(integers)
        offsets = next(each for each in model.graph.initializer if each.name == "offsets_1")
        values = onnx.numpy_helper.to_array(offsets).copy()
        values[0] += 2**20
        offsets.CopyFrom(onnx.numpy_helper.from_array(values, "offsets_1"))
        return model

    monkeypatch.setattr(integer_export, "integer_graph", wrong)
    run = make_run(tmp_path / "run", shape=(1, 4, 4))
    with pytest.raises(ExportError, match="other bits in onnxruntime than in numpy's integers"):
        export_run(run, tmp_path / "models", arithmetic="integer")
    assert not list(tmp_path.rglob("*.onnx"))
