import copy
import json
import os

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf import json_format

from bgan.trainer.common.errors import ConfigError, ExportError
from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.exporting import exporter as export
from bgan.trainer.exporting import graph as onnx_graph
from bgan.trainer.networks.generators import build_generator
from bgan.trainer.training.checkpoint import checkpoint_files, load_checkpoint, save_checkpoint, trained_generator
from bgan.v1 import model_pb2
from tests.kit.models import make_run

pytestmark = pytest.mark.usefixtures("exporting")

SLOPE = 1.3
SMALL = (1, 4, 4)


@pytest.mark.parametrize(
    "settings",
    [
        {"neuron": "dbn", "shape": (1, 28, 28)},
        {"neuron": "sbn", "slope_rate": 3.0, "steps": 11},
        {"neuron": "real"},
        {"neuron": "sbn", "network": "cnn", "shape": (3, 10, 17)},
        {"neuron": "dbn", "network": "cnn"},
        {"neuron": "dbn", "network": "doubling-cnn", "ema_decay": 0.5},
        {"neuron": "sbn", "network": "doubling-cnn", "shape": (3, 13, 6), "objective": "relativistic"},
        {"neuron": "dbn", "ema_decay": 0.5},
        {"neuron": "dbn", "generator_norm": "affine"},
        {"neuron": "sbn", "generator_norm": "affine", "network": "cnn", "shape": (2, 9, 14)},
    ],
)
def test_the_file_does_what_the_generator_does(tmp_path, settings):
    run = make_run(tmp_path / "run", **{"shape": (1, 12, 12), **settings})
    result = export.export_run(run, tmp_path / "models")
    assert (run.folder / "run.onnx").read_bytes() == result.path.read_bytes()

    checkpoint = load_checkpoint(checkpoint_files(run.checkpoints)[0])
    slope = checkpoint.meta.slope
    config = run.config()
    generator = trained_generator(config, checkpoint)
    kept = "average" if config.optimization.ema_decay else "generator"
    for name, tensor in generator.state_dict().items():
        assert torch.equal(tensor, checkpoint.tensors[f"{kept}.{name}"])
    latents = torch.randn(1500, config.networks.latent_size, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        expected = torch.sigmoid(slope * generator(latents)).numpy()

    session = onnxruntime.InferenceSession(result.path)
    feeds = {"latents": latents.numpy()}
    threshold = np.full(expected.shape, 0.5, np.float32)
    if config.neurons.neuron == "sbn":
        threshold = np.random.default_rng(1).random(expected.shape, np.float32)
        feeds["uniforms"] = threshold
    images, probabilities = session.run(["images", "probabilities"], feeds)
    assert images.dtype == np.uint8
    np.testing.assert_allclose(probabilities, expected, atol=1e-5, rtol=0)
    clear = np.abs(expected - threshold) > 1e-5
    np.testing.assert_array_equal(images[clear], (expected > threshold)[clear])


def test_the_graph_is_folded_and_says_nothing_of_this_machine(tmp_path):
    run = make_run(tmp_path / "run", network="cnn", shape=(1, 8, 8))
    for graph, transposed in (("fast", 0), ("plain", 2)):
        path = export.export_run(run, tmp_path, graph=graph).path
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        operators = [node.op_type for node in model.graph.node]
        assert "BatchNormalization" not in operators
        assert not {"RandomNormal", "RandomUniform", "Bernoulli"} & set(operators)
        assert operators.count("ConvTranspose") == transposed
        assert not any(initializer.external_data for initializer in model.graph.initializer)
        assert b"site-packages" not in path.read_bytes()
        assert str(tmp_path).encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("neuron", "shape", "network", "graph"),
    [
        ("dbn", (1, 28, 28), "cnn", "fast"),
        ("dbn", (3, 10, 17), "cnn", "fast"),
        ("dbn", (1, 8, 8), "cnn", "fast"),
        ("sbn", (1, 4, 40), "cnn", "fast"),
        ("dbn", (1, 28, 28), "doubling-cnn", "fast"),
        ("sbn", (3, 29, 10), "doubling-cnn", "fast"),
        ("dbn", (1, 12, 12), "cnn", "plain"),
        ("sbn", (1, 10, 12), "doubling-cnn", "plain"),
    ],
)
def test_each_graph_is_the_generator_and_rows_of_the_fast_one_do_not_depend_on_the_batch(
    neuron, shape, network, graph
):
    latents = np.random.default_rng(2).standard_normal((300, 128), np.float32)
    feeds = {"latents": latents}
    threshold = np.full((300, *shape), 0.5, np.float32)
    if neuron == "sbn":
        threshold = feeds["uniforms"] = np.random.default_rng(3).random(threshold.shape, np.float32)
    generator = random_cnn(shape, network)
    model = exported_cnn(shape, neuron=neuron, graph=graph, network=network)
    assert len(model) < 1.2 * sum(tensor.nbytes for tensor in generator.state_dict().values())

    images, probabilities = run_rows(model, feeds)
    rows = torch.from_numpy(latents)
    with torch.no_grad():
        rounded = torch.sigmoid(SLOPE * generator(rows)).numpy()
        expected = torch.sigmoid(SLOPE * copy.deepcopy(generator).double()(rows.double())).numpy()
    allowed = max(1e-6, 2 * np.abs(rounded - expected).max())  # torch's own error is the measure, as in the export
    np.testing.assert_allclose(probabilities, expected, atol=allowed, rtol=0)
    clear = np.abs(expected - threshold) > allowed
    np.testing.assert_array_equal(images[clear], (expected > threshold)[clear])
    if (neuron, graph) == ("dbn", "fast"):
        _assert_rows_do_not_depend_on_the_batch(model, latents, probabilities)


def _assert_rows_do_not_depend_on_the_batch(model, latents, expected):
    for threads in (1, 2):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model, options)
        for count in (*range(1, 20), 31, 32, 33, 63, 64, 65, 100, 127, 129, 200, 255, 256, 257, 299, 300):
            for rows in (slice(count), slice(300 - count, 300)):
                _, found = session.run(["images", "probabilities"], {"latents": latents[rows]})
                assert found.tobytes() == expected[rows].tobytes(), (threads, count, rows)


def random_cnn(shape, network):
    """A CNN of random weights and biases."""
    torch.manual_seed(0)
    generator = build_generator(network, ImageShape(*shape), 128).eval()
    for layer in generator.layers:
        if isinstance(layer, torch.nn.ConvTranspose2d | torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.bias, std=0.1)
    return generator


def exported_cnn(shape, *, neuron, graph, network="cnn"):
    """Such a CNN as a model, serialized."""
    generator = random_cnn(shape, network)
    return export.to_onnx(generator, SLOPE, stochastic=neuron == "sbn", graph=graph).SerializeToString()


def run_rows(model, feeds):
    session = onnxruntime.InferenceSession(model)
    return session.run(["images", "probabilities"], feeds)


def test_the_same_run_gives_the_same_file(tmp_path):
    run = make_run(tmp_path / "run", shape=SMALL)
    contents = {export.export_run(run, tmp_path / "models").path.read_bytes() for _ in range(2)}
    assert len(contents) == 1


def test_the_manifest_says_what_the_file_is(tmp_path):
    run = make_run(tmp_path / "night-run", neuron="sbn", shape=(2, 6, 7), steps=7, seed=3, slope_rate=1.5)
    model = onnx.load(export.export_run(run, tmp_path, name="glyphs").path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    manifest = json_format.Parse(metadata["bgan.model"], model_pb2.Model())
    assert manifest.metrics.pop("on_fraction") == pytest.approx(0.5, abs=0.3)
    assert manifest == model_pb2.Model(
        name="glyphs",
        neuron=model_pb2.NEURON_STOCHASTIC,
        binarization=model_pb2.BINARIZATION_BERNOULLI,
        network="mlp",
        latent_size=128,
        image_shape=model_pb2.ImageShape(channels=2, height=6, width=7),
        slope=1.5,  # the seventh iteration is in the second epoch
        dataset="digits",
        training_run=model_pb2.TrainingRun(
            name="night-run", step=7, epoch=1, seed=3, objective="wgan-gp", neuron=model_pb2.NEURON_STOCHASTIC
        ),
        bgan_version=manifest.bgan_version,
    )
    assert manifest.bgan_version
    assert json.loads(metadata["bgan.model"])["imageShape"] == {"channels": 2, "height": 6, "width": 7}


def test_the_real_valued_model_is_binarized_either_way(tmp_path):
    run = make_run(tmp_path / "run", neuron="real", shape=SMALL)
    inputs = {}
    for binarization in ("threshold", "bernoulli"):
        path = export.export_run(run, tmp_path, name=binarization, binarization=binarization).path
        inputs[binarization] = [argument.name for argument in onnxruntime.InferenceSession(path).get_inputs()]
    assert inputs == {"threshold": ["latents"], "bernoulli": ["latents", "uniforms"]}


def test_logits_so_large_that_torch_itself_is_off_by_more_than_the_bound(tmp_path):
    run = make_run(tmp_path / "run", network="doubling-cnn", shape=(1, 16, 16))
    checkpoint = load_checkpoint(checkpoint_files(run.checkpoints)[0])
    for name, tensor in checkpoint.tensors.items():
        if name.startswith("generator.") and tensor.dim() == 4:
            tensor.mul_(30)
    save_checkpoint(run.checkpoints, checkpoint.tensors, checkpoint.meta)
    result = export.export_run(run, tmp_path / "models")

    generator = trained_generator(run.config(), load_checkpoint(checkpoint_files(run.checkpoints)[0]))
    latents = torch.randn(1500, 128, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        rounded = torch.sigmoid(generator(latents)).numpy()
        exact = torch.sigmoid(generator.double()(latents.double())).numpy()
    own_error = np.abs(rounded - exact).max()
    assert own_error > 1e-5
    session = onnxruntime.InferenceSession(result.path)
    (probabilities,) = session.run(["probabilities"], {"latents": latents.numpy()})
    assert np.abs(probabilities - exact).max() < 2 * own_error


def test_a_file_that_does_something_else_is_refused_and_not_left(tmp_path, monkeypatch):
    folded = onnx_graph.folded_layers
    monkeypatch.setattr(onnx_graph, "folded_layers", lambda layers, slope: folded(layers, 1.01 * slope))
    run = make_run(tmp_path / "run", shape=SMALL)
    with pytest.raises(ExportError, match="away from torch's"):
        export.export_run(run, tmp_path / "models")
    assert not list(tmp_path.rglob("*.onnx"))


def test_wrong_names_and_binarizations_are_refused(tmp_path):
    run = make_run(tmp_path / "run", shape=SMALL)
    with pytest.raises(ConfigError, match="choose one of threshold, bernoulli"):
        export.export_run(run, tmp_path, binarization="dither")
    with pytest.raises(ConfigError, match="such as --name x"):
        export.export_run(run, tmp_path, name="../x")
    with pytest.raises(ConfigError, match="choose one of fast, plain"):
        export.export_run(run, tmp_path, graph="quick")


def test_a_model_of_another_run_is_replaced_only_where_asked(tmp_path):
    runs = {name: make_run(tmp_path / name, shape=SMALL) for name in ("one", "two")}
    path = export.export_run(runs["one"], tmp_path / "models", name="digits").path
    export.export_run(runs["one"], tmp_path / "models", name="digits", graph="plain")
    before = path.read_bytes()
    with pytest.raises(ExportError, match=r"a model of the run 'one', seed 0; choose another --name"):
        export.export_run(runs["two"], tmp_path / "models", name="digits")
    assert path.read_bytes() == before
    export.export_run(runs["two"], tmp_path / "models", name="digits", overwrite=True)
    path.write_bytes(b"thesis")
    with pytest.raises(ExportError, match="is no model that `bgan export` wrote; choose another"):
        export.export_run(runs["two"], tmp_path / "models", name="digits")
    assert path.read_bytes() == b"thesis"


def test_classes_of_folders_that_are_not_utf8_are_exported(tmp_path):
    """Also of a run that was trained before such names became text."""
    run = make_run(tmp_path / os.fsdecode(b"caf\xe9"), shape=SMALL, conditional=True, classes=("caf\udce9", "tea"))
    model = onnx.load(export.export_run(run, tmp_path, name="glyphs").path)
    manifest = json_format.Parse(
        {each.key: each.value for each in model.metadata_props}["bgan.model"], model_pb2.Model()
    )
    assert list(manifest.classes) == [r"caf\xe9", "tea"]
