"""Models with gates, and with binary hidden neurons: what an engine gives, and manifests that are refused."""

import numpy as np
import onnx
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from bgan.serving.errors import ModelFileError
from bgan.serving.models.engine import TILE_ROWS, load_engine
from bgan.serving.models.noise import ImageRange
from bgan.v1 import model_pb2
from tests.fixtures.write import HIDDEN, PARTS, write_model

NAMES = ("gated-dbn", "gated-sbn", "gated-cnn", "hidden-sbn")


@pytest.fixture(scope="module")
def engines(gated_models):
    return {name: load_engine(gated_models / f"{name}.onnx") for name in NAMES}


def _sigmoid(values):
    return 1 / (1 + np.exp(-values))


def _layers(weights, key, latents):
    hidden = np.maximum(latents @ weights[f"{key}first"] + weights[f"{key}first_bias"], 0)
    return hidden @ weights[f"{key}second"] + weights[f"{key}second_bias"]


@pytest.mark.parametrize("name", ["gated-dbn", "gated-sbn"])
def test_parts_run_for_the_images_whose_gates_are_on(engines, gated_models, name):
    """Against all parts computed for all images, and multiplied by their gates."""
    engine = engines[name]
    noise = engine.noise.draw(7, 100, 33)
    found = {
        each.name: numpy_helper.to_array(each)
        for each in onnx.load(gated_models / f"{name}.onnx").graph.initializer
    }
    latents = noise.latents if noise.labels is None else noise.latents + found["classes"][noise.labels]
    gate_logits = latents @ found["gate"] + found["gate_bias"]
    gates = gate_logits > 0 if noise.inner is None else noise.inner < _sigmoid(gate_logits)
    logits = _layers(found, "", latents)
    for part in range(PARTS):
        logits += gates[:, part, None] * _layers(found, f"part_{part}_", latents)
    images, probabilities, ran = engine.infer(*noise)
    assert ran.dtype == np.uint8
    np.testing.assert_array_equal(ran, gates)
    assert 0 < gates.mean() < 1
    np.testing.assert_allclose(probabilities.reshape(33, -1), _sigmoid(logits), atol=1e-5)
    batch = engine.sample(7, 100, 33, with_probabilities=True)
    assert batch.part_runs == tuple(gates.sum(0))
    assert batch.probabilities == probabilities.tobytes()
    assert batch.packed_images == np.packbits(images.reshape(33, -1), axis=1).tobytes()


def test_stochastic_hidden_neurons_take_the_inner_uniforms(engines, gated_models):
    engine = engines["hidden-sbn"]
    noise = engine.noise.draw(3, 50, 40)
    found = {
        each.name: numpy_helper.to_array(each)
        for each in onnx.load(gated_models / "hidden-sbn.onnx").graph.initializer
    }
    assert noise.inner.shape == (40, HIDDEN)
    bits = noise.inner < _sigmoid(noise.latents @ found["first"] + found["first_bias"])
    _, probabilities = engine.infer(*noise)
    logits = bits @ found["second"] + found["second_bias"]
    np.testing.assert_allclose(probabilities.reshape(40, -1), _sigmoid(logits), atol=1e-5)
    assert engine.sample(3, 50, 40).part_runs == ()


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    seed=st.integers(0, 2**63 - 1),
    first=st.integers(0, 2**63 - 500),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
)
def test_bits_and_gates_depend_on_no_split(engines, name, seed, first, sizes):
    engine = engines[name]
    assert engine.tile_rows is None
    whole = engine.sample(seed, first, sum(sizes), with_probabilities=True)
    starts = [first + sum(sizes[:place]) for place in range(len(sizes))]
    ranges = [ImageRange(seed, start, size) for start, size in zip(starts, sizes, strict=True)]
    alone = [engine.sample(each.seed, each.first_index, each.count) for each in ranges]
    others = [ImageRange(seed // 2, 5, 3), *reversed(ranges)]
    *shared, _ = reversed(engine.sample_ranges(others))
    assert shared == alone
    assert b"".join(each.packed_images for each in alone) == whole.packed_images
    assert tuple(np.sum([each.part_runs for each in alone], 0, dtype=int).tolist()) == whole.part_runs


def test_neighbours_in_a_tile_are_not_counted(tmp_path):
    write_model(tmp_path, "tiled", tiled=True, gates="sbn", shape=(1, 4, 5), latent_size=6)
    engine = load_engine(tmp_path / "tiled.onnx")
    assert engine.tile_rows == TILE_ROWS
    runs = [engine.sample(1, index, 1).part_runs for index in range(130)]
    assert engine.sample(1, 0, 130).part_runs == tuple(np.sum(runs, 0).tolist())
    assert engine.sample(1, 60, 7).part_runs == tuple(np.sum(runs[60:67], 0).tolist())
    assert max(map(max, runs)) == 1


def _gates(**fields):
    kept = {"count": PARTS, "rate": 0.5, "neuron": "NEURON_STOCHASTIC", "mean_active_share": 0.5, **fields}
    return {"gates": {key: value for key, value in kept.items() if value is not None}}


REFUSED = {
    "one gate": (_gates(count=1), "has a manifest of 1 gates; 2 to 1024 are allowed"),
    "no gate": (_gates(count=0), "has a manifest of 0 gates"),
    "too many": (_gates(count=5000), "has a manifest of 5000 gates"),
    "no neuron": (_gates(neuron=None), "gates are neither deterministic nor stochastic neurons"),
    "real gates": (_gates(neuron="NEURON_REAL"), "gates are neither deterministic nor stochastic neurons"),
    "no rate": (_gates(rate=0), "rate is not above 0 and at most 1"),
    "rate above 1": (_gates(rate=1.01), "rate is not above 0 and at most 1"),
    "rate NaN": (_gates(rate="NaN"), "rate is not above 0 and at most 1"),
    "mean above 1": (_gates(mean_active_share=1.5), "active shares are not from 0 to 1"),
    "mean NaN": (_gates(mean_active_share="NaN"), "active shares are not from 0 to 1"),
    "share below 0": (_gates(active_shares=[0.5, -0.1, 0.5]), "active shares are not from 0 to 1"),
    "two shares": (_gates(active_shares=[0.5, 0.1]), "active shares are not one for each part"),
    "shares of no class": (_gates(class_active_shares=[0.5] * PARTS), "not one for each part of each class"),
    "other uniforms": ({"inner_uniform_count": 2}, "of 2 inner uniforms, which its inner neurons do not take"),
    "no uniforms": ({"inner_uniform_count": 0}, "of 0 inner uniforms, which its inner neurons do not take"),
    "uniforms of none": (
        _gates(neuron="NEURON_DETERMINISTIC"),
        f"of {PARTS} inner uniforms, which its inner neurons do not take",
    ),
    "negative": ({"inner_uniform_count": -1}, "of -1 inner uniforms"),
    "both": ({"hidden_neuron": "NEURON_DETERMINISTIC"}, "of gates and of binary hidden neurons"),
    "real hidden": ({"gates": None, "hidden_neuron": "NEURON_REAL"}, "hidden neurons are neither deterministic"),
    "too many uniforms": (
        {"gates": None, "hidden_neuron": "NEURON_STOCHASTIC", "inner_uniform_count": 2**21},
        "of 2097152 inner uniforms",
    ),
    "no gates": (
        {"gates": None, "inner_uniform_count": 0},
        "has the inputs ['inner_uniforms', 'latents'] where its manifest promises ['latents']",
    ),
    "another number": (
        {**_gates(count=4), "inner_uniform_count": 4},
        "has the input inner_uniforms of tensor(float) ['batch', 3]",
    ),
    "gates of the outputs": (
        {"gates": None, "hidden_neuron": "NEURON_STOCHASTIC"},
        "has the outputs ['gates', 'images', 'probabilities']",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_manifests_that_do_not_fit_are_refused(gated_models, tmp_path, name):
    fields, says = REFUSED[name]
    model = onnx.load(gated_models / "gated-cnn.onnx")
    (entry,) = model.metadata_props
    manifest = json_format.Parse(entry.value, model_pb2.Model())
    for field, value in fields.items():
        manifest.ClearField(field)
        if value is not None:
            json_format.ParseDict({field: value}, manifest)
    entry.value = json_format.MessageToJson(manifest)
    path = tmp_path / "x.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError) as caught:
        load_engine(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_gates_are_bits(gated_models, tmp_path):
    """Here they are what is added to the logits of a part, or a cast of the gates' own logits."""
    model = onnx.load(gated_models / "gated-dbn.onnx")
    (cast,) = [node for node in model.graph.node if node.output[0] == "gates"]
    cast.input[0] = "gate_logits"
    path = tmp_path / "x.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match="gives gates with other values than 0 and 1"):
        load_engine(path)
