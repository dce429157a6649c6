import numpy as np
import onnx
import pytest
import torch

from bgan.trainer.common.errors import ExportError
from bgan.trainer.evaluation.generator import TrainedGenerator
from bgan.trainer.exporting import exporter, inner
from bgan.trainer.exporting.graph import to_onnx
from bgan.trainer.exporting.model_file import MANIFEST_KEY, OnnxModel, open_session
from bgan.trainer.training.checkpoint import checkpoint_files, load_checkpoint, trained_generator
from bgan.v1 import model_pb2
from tests.kit.models import make_run

pytestmark = pytest.mark.usefixtures("exporting")

GATED = {"gates": 3, "latent_size": 6, "shape": (1, 6, 5), "width": 0.02}


def _opened(run):
    checkpoint = load_checkpoint(checkpoint_files(run.checkpoints)[0])
    return trained_generator(run.config(), checkpoint), checkpoint.meta.slope


def _session(path):
    return open_session(path.read_bytes())


@pytest.mark.parametrize(
    "settings",
    [
        {"network": "mlp"},
        {"network": "mlp", "gate_neuron": "sbn", "neuron": "sbn", "slope_rate": 3.0, "steps": 11},
        {"network": "mlp", "gate_by": "random", "gate_rate": 1.0, "generator_norm": "affine"},
        {"network": "doubling-cnn", "shape": (1, 9, 9), "width": 0.75, "ema_decay": 0.5},
        {"network": "mlp", "gate_by": "labels", "conditional": True, "classes": ("a", "b"), "steps": 6},
    ],
    ids=["dbn", "sbn", "always on", "cnn", "labels"],
)
def test_a_gated_file_does_what_the_generator_does(tmp_path, settings):
    run = make_run(tmp_path / "run", **GATED | settings)
    result = exporter.export_run(run, tmp_path / "models")
    generator, slope = _opened(run)
    random = torch.Generator().manual_seed(9)
    latents = torch.randn(300, 6, generator=random)
    feeds, labels, uniforms = {"latents": latents}, None, None
    if generator.class_count:
        feeds["labels"] = labels = torch.arange(300) % 2
    if settings.get("gate_neuron") == "sbn":
        feeds["inner_uniforms"] = uniforms = torch.rand(300, 3, generator=random)
    if settings.get("neuron") == "sbn":
        feeds["uniforms"] = torch.rand(300, *generator.image_shape, generator=random)
    names = ["images", "probabilities", "gates"]
    images, probabilities, gates = _session(result.path).run(
        names, {key: value.numpy() for key, value in feeds.items()}
    )
    with torch.no_grad():
        passed = generator.inner_pass(latents, labels)
        bits = generator.bits(passed.logits, slope, uniforms)
        expected = torch.sigmoid(slope * passed.outputs(bits)).numpy()
    assert gates.dtype == np.uint8
    assert (gates == bits.numpy()).all()
    assert np.abs(probabilities - expected).max() < 1e-5
    threshold = feeds["uniforms"].numpy() if "uniforms" in feeds else 0.5
    assert (images == (probabilities > threshold)).all()
    if settings.get("gate_rate") == 1.0:
        assert gates.all()
    else:
        assert 0 < gates.mean() < 1

    manifest = OnnxModel(result.path).manifest
    assert (result.parts, result.rows + result.left_out) == (3, 1024)
    own = manifest.gates
    assert (own.count, own.rate, own.neuron) == (3, settings.get("gate_rate", 0.5), bits_of(settings))
    assert manifest.inner_uniform_count == (3 if uniforms is not None else 0)
    assert own.mean_active_share == pytest.approx(np.mean(own.active_shares))
    assert np.abs(np.array(own.active_shares) - gates.mean(axis=0)).max() < 0.15
    assert len(own.class_active_shares) == 3 * generator.class_count
    drawn = TrainedGenerator.from_model(result.path).sample(600, seed=3)
    assert drawn.images.shape == (600, *generator.image_shape)


def bits_of(settings):
    is_stochastic = settings.get("gate_neuron") == "sbn"
    return model_pb2.NEURON_STOCHASTIC if is_stochastic else model_pb2.NEURON_DETERMINISTIC


@pytest.mark.parametrize("neuron", ["dbn", "sbn"])
@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_a_file_with_a_binary_hidden_layer_does_what_the_generator_does(tmp_path, network, neuron):
    settings = {"latent_size": 6, "shape": (1, 8, 8), "width": 0.05, "network": network, "steps": 6}
    run = make_run(tmp_path / "run", hidden_neuron=neuron, slope_rate=2.0, **settings)
    result = exporter.export_run(run, tmp_path / "models")
    generator, slope = _opened(run)
    random = torch.Generator().manual_seed(9)
    latents = torch.randn(200, 6, generator=random)
    uniforms = torch.rand(200, generator.inner_count, generator=random) if neuron == "sbn" else None
    feeds = {"latents": latents.numpy()} | ({} if uniforms is None else {"inner_uniforms": uniforms.numpy()})
    probabilities = _session(result.path).run(["probabilities"], feeds)[0]
    with torch.no_grad():
        logits = generator(latents, slope=slope, inner_uniforms=uniforms)
    assert np.abs(probabilities - torch.sigmoid(slope * logits).numpy()).max() < 1e-5
    assert OnnxModel(result.path).manifest.hidden_neuron == bits_of({"gate_neuron": neuron})


def test_a_part_runs_for_the_rows_alone_whose_gate_is_on(tmp_path):
    """A poisoned part changes no image whose gate is off, and all others."""
    generator, slope = _opened(make_run(tmp_path / "run", **GATED))
    latents = {"latents": np.random.default_rng(1).standard_normal((100, 6), np.float32)}
    names = ["probabilities", "gates"]
    before, gates = open_session(to_onnx(generator, slope, stochastic=False).SerializeToString()).run(
        names, latents
    )
    with torch.no_grad():
        generator.parts[1].layers[-2].bias.fill_(torch.nan)
    after, _ = open_session(to_onnx(generator, slope, stochastic=False).SerializeToString()).run(names, latents)
    on = gates[:, 1] == 1
    assert np.isnan(after[on]).all()
    assert (after[~on] == before[~on]).all()
    assert 0 < on.mean() < 1


def test_a_file_whose_parts_run_otherwise_is_not_written(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", **GATED)
    generator, slope = _opened(run)
    masked = to_onnx(generator, slope, stochastic=False, is_routed=False)
    with torch.no_grad():
        generator.parts[0].layers[-2].bias.add_(1)
    routed = to_onnx(generator, slope, stochastic=False)
    inputs = {"latents": torch.randn(50, 6)}
    with pytest.raises(ExportError, match=r"gives other (images|probabilities) than the masked one"):
        inner.check_routing(routed, masked, inputs)


@pytest.mark.parametrize(
    ("settings", "what"),
    [({"gates": 2}, "the gates of run"), ({"hidden_neuron": "dbn"}, "the hidden neurons of run")],
)
def test_there_are_no_integer_files_of_inner_neurons(tmp_path, settings, what):
    run = make_run(tmp_path / "run", shape=(1, 4, 4), latent_size=4, **settings)
    with pytest.raises(ExportError, match=f"^{what} are decided by floats.*leave out --arithmetic$"):
        exporter.export_run(run, tmp_path / "models", arithmetic="integer")
    assert not (tmp_path / "models").exists()


def test_files_without_inner_neurons_say_nothing_of_them(tmp_path):
    path = exporter.export_run(make_run(tmp_path / "run", shape=(1, 4, 4)), tmp_path / "models").path
    properties = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert not {"gates", "innerUniformCount", "hiddenNeuron"} & set(
        properties[MANIFEST_KEY].replace('"', " ").split()
    )
