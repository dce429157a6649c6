"""Providers, by the two of the plain wheel: the CPU's, and Azure's, which leaves all nodes to the CPU."""

import hashlib
from dataclasses import replace

import onnxruntime
import pytest

from bgan.serving.config.limits import MAX_MODEL_BYTES
from bgan.serving.config.settings import SHIPPED
from bgan.serving.errors import ModelFileError
from bgan.serving.models import providers
from bgan.serving.models.checked import open_checked
from bgan.serving.models.checker import Check
from bgan.serving.models.engine import cpu_class, load_engine
from bgan.serving.models.model_files import snapshot
from bgan.serving.models.noise import layout_number
from bgan.serving.models.providers import CPU, Provider, open_session, start_provider
from tests.kit.cli import bgan, bgan_process, error_line

OTHER = Provider("other", "AzureExecutionProvider", identity=("other", "a device", "a library 1.0"))


@pytest.fixture
def model(models):
    return models / "mlp-dbn.onnx"


def test_the_cpus_revision_of_a_float_model_names_no_provider(model):
    engine = load_engine(model)
    parts = [hashlib.sha256(model.read_bytes()).hexdigest(), str(layout_number(()))]
    parts += [onnxruntime.__version__, cpu_class()]
    assert engine.revision == hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    assert start_provider("cpu") is CPU


def test_another_device_or_library_gives_floats_another_revision(model):
    newer = replace(OTHER, identity=("other", "a device", "a library 1.1"))
    revisions = {load_engine(model, provider=each).revision for each in (CPU, OTHER, newer)}
    assert len(revisions) == 3


def test_integers_keep_their_revision_and_run_in_any_batch():
    path = SHIPPED / "mlp-sbn.onnx"
    here, there = load_engine(path), load_engine(path, provider=OTHER)
    assert (there.revision, there.tile_rows) == (here.revision, None)
    assert there.sample(1, 5, 1500) == here.sample(1, 5, 1500)


def test_floats_of_another_provider_run_in_its_tiles_alone(model, monkeypatch):
    found = Check(hashlib.sha256(model.read_bytes()).hexdigest())  # the CPU's, of which the content counts
    engine = open_checked(snapshot(model), found, MAX_MODEL_BYTES, OTHER)
    counts, infer = set(), engine._infer
    monkeypatch.setattr(
        engine, "_infer", lambda outputs, noise: counts.add(len(noise.latents)) or infer(outputs, noise)
    )
    pieces = [engine.sample(1, 1000, 41), engine.sample(1, 1041, 59)]
    assert counts == {engine.tile_rows} == {1024}
    whole = load_engine(model).sample(1, 1000, 100)
    assert b"".join(piece.packed_images for piece in pieces) == whole.packed_images
    assert engine.preferred_batch_size() == 2048  # whole tiles
    assert engine.preferred_batch_size(with_probabilities=True) == 1024


def test_a_device_computes_floats_in_float32_by_no_timed_choice(model):
    assert providers._OTHERS["cuda"].options == {"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT"}
    options = open_session(model.read_bytes(), OTHER).get_session_options()
    assert options.use_deterministic_compute


def test_a_provider_that_onnxruntime_leaves_out_in_silence_opens_no_model(model):
    """For want of a library it takes the CPU's, and says so in its log alone."""
    kind = next(
        each for each in ("CUDAExecutionProvider", "OpenVINOExecutionProvider") if each not in _available()
    )
    with (
        pytest.warns(UserWarning, match="not in available provider names"),
        pytest.raises(ModelFileError) as caught,
    ):
        open_session(model.read_bytes(), Provider("missing", kind))
    assert "cannot be opened by missing" in caught.value.message
    assert "cannot open shared object file" in caught.value.detail


@pytest.mark.parametrize("command", ["generate", "serve"])
@pytest.mark.parametrize(("name", "package"), [("cuda", "onnxruntime-gpu"), ("openvino", "onnxruntime-openvino")])
def test_a_provider_that_is_not_there_is_one_line(command, name, package, models, tmp_path):
    if providers._OTHERS[name].kind in _available():
        pytest.skip(f"this onnxruntime has {name}")
    if command == "generate":
        result = bgan(command, "mlp-dbn", "-o", tmp_path / "x.npz", "--models", models, "--provider", name)
    else:
        result = bgan_process(command, "--port", 0, "--models", SHIPPED, "--provider", name)
    assert f"install {package} in place of onnxruntime, or use the provider cpu" in error_line(result)


def test_a_provider_whose_device_is_missing_is_one_line(monkeypatch):
    """Azure's in CUDA's place: it opens, and what it would run on is not found."""
    monkeypatch.setitem(providers._OTHERS, "cuda", replace(providers._OTHERS["cuda"], kind=OTHER.kind, options={}))
    start_provider.cache_clear()
    result = bgan("generate", "mlp-dbn", "-o", "x.npz", "--provider", "cuda")
    start_provider.cache_clear()
    assert "provider cuda cannot be used here: libcuda.so.1: cannot open" in error_line(result)


def _available():
    return onnxruntime.get_available_providers()
