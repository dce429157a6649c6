"""What `bgan explore` and a model's card show of a generator with gates."""

import numpy as np
import pytest
from PIL import Image

from bgan.trainer import explore as explore_run
from bgan.trainer.evaluation.generator import TrainedGenerator
from bgan.trainer.exporting.exporter import export_run
from bgan.trainer.reports.card import inner_words
from bgan.trainer.reports.exploration.explore import ExplorationOptions, explore
from bgan.trainer.reports.exploration.page import build_page
from bgan.trainer.reports.exploration.part_pictures import differences
from bgan.trainer.reports.exploration.pictures import draw_pictures
from bgan.trainer.reports.sheet import BLUE, ORANGE
from bgan.v1 import model_pb2
from tests.kit.models import make_run

PLAN = ExplorationOptions(images=3, steps=5, draws=2)
SETTINGS = {"shape": (1, 6, 5), "network": "mlp", "width": 0.05, "latent_size": 6, "steps": 2}
CLASSES = {"classes": ("a", "b"), "conditional": True}
NAMES = ["neurons", "preactivations", "interpolation", "parts", "classes", "forced"]


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "gated"
    return make_run(folder, gates=3, gate_neuron="sbn", neuron="sbn", **SETTINGS, **CLASSES)


def test_parts_are_turned_over_one_at_a_time(gated):
    generator = TrainedGenerator.from_run(gated)
    assert (generator.gates.count, generator.gates.shares.shape, generator.inner_uniform_count) == (3, (2, 3), 3)
    exploration = explore(generator, PLAN, None)
    parts = exploration.parts
    assert parts.gates.shape == (500, 3)
    assert 0 < parts.gates.mean() < 1
    assert parts.turned.shape == (3, 3, 1, 6, 5)
    latents, labels = np.zeros((1, 6), np.float32), np.zeros(1, np.int64)
    ones = generator.gates.of(latents, labels, np.zeros((1, 3), np.float32))
    assert ones.tolist() == [[1, 1, 1]]  # each uniform is below its probability
    np.testing.assert_array_equal(
        generator.gates.forced(latents, labels, ones),
        generator.probabilities(latents, labels, np.zeros((1, 3), np.float32)),
    )
    assert (parts.turned != exploration.images[:3, None]).any()
    for i, row in enumerate(exploration.interpolation):  # the uniforms of gates are held along a row
        np.testing.assert_array_equal(row[0], exploration.images[i])


def test_the_pictures_of_parts_stand_between_the_others(gated, tmp_path):
    page = explore_run(gated, tmp_path / "page", nearest=False, images=2)
    assert [path.stem for path in page.pictures] == NAMES
    html = page.page.read_text()
    assert "Generator mlp, gates 3 at 0.5, neurons sbn" in html
    assert "Orange is on only with the part, blue only without it" in html
    assert "takes none" not in html
    with Image.open(page.pictures[3]) as picture:
        colours = {tuple(colour) for _, colour in picture.convert("RGB").getcolors(2**20)}
    assert ORANGE in colours


def test_a_model_file_has_all_but_what_it_would_have_to_force(gated, tmp_path, exporting):
    path = export_run(gated, tmp_path).path
    generator = TrainedGenerator.from_model(path)
    exploration = explore(generator, PLAN, None)
    of_run = explore(TrainedGenerator.from_run(gated), PLAN, None)
    assert (exploration.parts.gates != of_run.parts.gates).mean() < 0.01  # where rounding decides
    np.testing.assert_allclose(exploration.parts.shares, of_run.parts.shares, atol=1e-9)
    pictures = draw_pictures(exploration)
    assert [picture.name for picture in pictures] == NAMES[:-1]
    assert "A model file tells its gates but takes none" in build_page(exploration, pictures)
    assert generator.sample(7).images.shape == (7, 1, 6, 5)


def test_runs_with_a_binary_hidden_layer_are_explored(tmp_path):
    run = make_run(tmp_path / "run", hidden_neuron="sbn", **SETTINGS)
    generator = TrainedGenerator.from_run(run)
    exploration = explore(generator, PLAN, None)
    assert exploration.parts is None
    assert [picture.name for picture in draw_pictures(exploration)] == NAMES[:3]
    again = explore(generator, PLAN, None)
    np.testing.assert_array_equal(exploration.interpolation, again.interpolation)
    np.testing.assert_array_equal(exploration.interpolation[:, 0], exploration.images[:3])


def test_pixels_have_the_colour_of_their_side():
    first, second = (np.array([[[row]]], np.uint8) for row in ([1, 1, 0, 0], [1, 0, 1, 0]))
    pictures = differences(first, second)
    assert pictures[0, 0].tolist() == [[63, 63, 63], list(ORANGE), list(BLUE), [0, 0, 0]]


def test_a_card_tells_which_parts_serve_which_class():
    gates = model_pb2.Gates(
        count=2,
        rate=0.25,
        neuron=model_pb2.NEURON_DETERMINISTIC,
        mean_active_share=0.3,
        active_shares=[0.1, 0.5],
        class_active_shares=[0.2, 0, 0, 1],
    )
    words = inner_words(model_pb2.Model(gates=gates, classes=["a", "b"]))
    assert words["inner"] == ", of a trunk and 2 parts behind deterministic binary gates"
    assert words["gates_output"] == "; `gates`, uint8 [batch, 2], 1 where a part ran"
    assert words["inner_uniforms"] == ""
    assert "Of 2 parts 30 % run for an image on average (training aimed at 25 %)" in words["gates"]
    assert "the least busy for 10 % of the images, the busiest for 50 %" in words["gates"]
    table = [line for line in words["gates"].splitlines() if line.startswith("|")]
    assert table == ["| class | part 0 | part 1 |", "| --- | ---: | ---: |", "| a | 20 | 0 |", "| b | 0 | 100 |"]
    hidden = model_pb2.Model(inner_uniform_count=5, hidden_neuron=model_pb2.NEURON_STOCHASTIC)
    words = inner_words(hidden)
    assert words["inner"] == ", its last hidden layer of stochastic binary neurons"
    assert words["inner_uniforms"] == "; `inner_uniforms`, float32 [batch, 5] in [0, 1)"
    assert set(inner_words(model_pb2.Model()).values()) == {""}
