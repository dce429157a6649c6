"""The parts of `bgan explore`: walks between latents, draws, nearest images, and sheets of crisp pixels."""

import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.config.images import DatasetSpec
from bgan.trainer.evaluation.generator import TrainedGenerator
from bgan.trainer.evaluation.metrics import memorization
from bgan.trainer.evaluation.metrics.memorization import nearest_distances, nearest_images
from bgan.trainer.reports.exploration.explore import (
    AVERAGED,
    DRAWN,
    ExplorationOptions,
    RealImages,
    explore,
    load_real_images,
    slerp,
)
from bgan.trainer.reports.exploration.page import build_page
from bgan.trainer.reports.exploration.pictures import draw_pictures
from bgan.trainer.reports.sheet import BLUE, ORANGE, Block, draw_sheet, grey, tinted

RANDOM = np.random.default_rng
PLAN = ExplorationOptions(images=3, steps=5, draws=4)


def _generator(probabilities=None, *, shape=(1, 6, 5), neuron="dbn", **facts):
    """A generator of a known function of latents; without one, pixel k follows latent k."""
    shape = ImageShape(*shape)
    pixels = int(np.prod(shape))

    def follow_latents(latents, labels, inner=None):
        return (1 / (1 + np.exp(-latents[:, :pixels]))).reshape(-1, *shape).astype(np.float32)

    return TrainedGenerator(
        **{
            "name": "known",
            "network": "mlp",
            "neuron": neuron,
            "training_neuron": neuron,
            "is_stochastic": neuron == "sbn",
            "latent_size": pixels,
            "image_shape": shape,
            "slope": 1.0,
            "step": 7,
            "dataset_spec": DatasetSpec(dataset="digits"),
            "training_split": "train",
            "output": Path("exploration"),
            "probabilities": probabilities or follow_latents,
            **facts,
        }
    )


def _constant(p, shape=(1, 6, 5)):
    return lambda latents, labels, inner=None: np.full((len(latents), *shape), p, np.float32)


def test_slerp_turns_evenly_and_keeps_its_length():
    start, end = RANDOM(0).standard_normal((2, 64)).astype(np.float32)
    path = slerp(start, end, 9)
    assert path.dtype == np.float32
    np.testing.assert_allclose(path[[0, -1]], [start, end], atol=1e-6)
    start, end = (latent / np.linalg.norm(latent) for latent in (start, end))
    path = slerp(start, end, 9)
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), 1, atol=1e-6)
    cosines = (path[1:] * path[:-1]).sum(axis=1)
    np.testing.assert_allclose(cosines, cosines[0], atol=1e-6)
    straight = np.linalg.norm((start + end) / 2)
    assert straight < 0.9 < np.linalg.norm(path[4])


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0])
def test_slerp_of_latents_on_one_line_is_straight(factor):
    start = np.array([0.5, -2.0], np.float32)
    path = slerp(start, factor * start, 3)
    np.testing.assert_allclose(path, [start, start * (1 + factor) / 2, factor * start], atol=1e-6)


def test_rows_lead_from_latent_to_latent_and_back_to_the_first():
    exploration = explore(_generator(), PLAN, None)
    assert exploration.interpolation.shape == (3, 5, 1, 6, 5)
    for i, row in enumerate(exploration.interpolation):
        np.testing.assert_array_equal(row[0], exploration.images[i])
        np.testing.assert_array_equal(row[-1], exploration.images[(i + 1) % 3])
    np.testing.assert_array_equal(exploration.images, exploration.probabilities > 0.5)


def test_along_a_row_only_the_latent_moves():
    exploration = explore(_generator(_constant(0.5), neuron="sbn"), PLAN, None)
    for row in exploration.interpolation:
        assert (row == row[0]).all()
    assert (exploration.interpolation[0] != exploration.interpolation[1]).any()


def test_draws_are_drawn_with_the_probabilities_and_the_first_is_the_image():
    exploration = explore(_generator(_constant(0.3), neuron="sbn"), PLAN, None)
    assert exploration.draws.shape == (3, AVERAGED, 1, 6, 5)
    assert exploration.draws.mean() == pytest.approx(0.3, abs=0.03)  # 5,760 bits: five standard errors
    np.testing.assert_array_equal(exploration.draws[:, 0], exploration.images[:3])
    flat = exploration.draws.reshape(3 * AVERAGED, -1)
    assert len(np.unique(flat, axis=0)) == len(flat)


def test_more_of_one_thing_changes_none_of_the_others():
    few, many = (
        explore(_generator(neuron="sbn"), plan, None) for plan in (PLAN, ExplorationOptions(images=6, steps=9))
    )
    np.testing.assert_array_equal(few.images, many.images)
    np.testing.assert_array_equal(few.draws, many.draws[:3])
    np.testing.assert_array_equal(few.interpolation[:2], many.interpolation[:2, ::2])
    other = explore(_generator(neuron="sbn"), ExplorationOptions(images=3, steps=5, draws=4, seed=1), None)
    assert (few.images != other.images).mean() > 0.2


def test_classes_take_turns_and_a_row_is_of_one_class():
    def follow_labels(latents, labels, inner=None):
        return np.broadcast_to(np.float32([0.1, 0.9])[labels, None, None, None], (len(latents), 1, 6, 5))

    exploration = explore(_generator(follow_labels, classes=("off", "on")), PLAN, None)
    np.testing.assert_array_equal(exploration.images.mean(axis=(1, 2, 3)), np.arange(DRAWN) % 2)
    for i, row in enumerate(exploration.interpolation):
        assert (row == i % 2).all()


@pytest.mark.parametrize("values", [2**26, 24 * 7], ids=["at once", "in blocks"])
def test_nearest_images_by_brute_force(monkeypatch, values):
    monkeypatch.setattr(memorization, "_VALUES", values)
    images, training = (
        (RANDOM(seed).random((count, 2, 4, 3)) < 0.4).astype(np.uint8) for seed, count in ((1, 30), (2, 70))
    )
    distances = (images[:, None] != training[None]).sum(axis=(2, 3, 4))
    np.testing.assert_array_equal(nearest_images(images, training), distances.argmin(axis=1))
    np.testing.assert_array_equal(nearest_distances(images, training), distances.min(axis=1))


def test_a_copy_is_found_and_counted():
    drawn = explore(_generator(), PLAN, None).images
    training = 1 - drawn[:50]
    training[7] = drawn[2]
    exploration = explore(_generator(), PLAN, RealImages(name="copies", training=training, test=training[:7]))
    nearest = exploration.nearest
    assert nearest.distances[2] == 0
    np.testing.assert_array_equal(nearest.neighbours[2], drawn[2])
    np.testing.assert_array_equal(nearest.real_distances, 0)
    assert nearest.distances.shape == (DRAWN,)
    caption = draw_pictures(exploration)[-1].caption
    assert "the one of 50 training images (copies)" in caption
    assert "the most alike within 0; of 7 real test images half come within 0, the most alike within 0." in caption


def test_a_run_on_all_images_leaves_none_to_compare_with():
    real = load_real_images(_generator(shape=(1, 28, 28), training_split="all"), None, None, print)
    assert (len(real.training), len(real.test)) == (1797, 0)
    exploration = explore(_generator(shape=(1, 28, 28)), PLAN, real)
    assert "real test images" not in draw_pictures(exploration)[-1].caption


def test_channels_are_colours_or_lie_side_by_side():
    values = RANDOM(4).random((2, 3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(grey(values), np.rint(values.transpose(0, 2, 3, 1) * 255))
    np.testing.assert_array_equal(tinted(values), grey(values))
    for channels in (1, 2, 4):
        values = RANDOM(channels).random((2, channels, 4, 5)).astype(np.float32)
        pictures = grey(values)
        assert pictures.shape == (2, 4, 5 * channels, 3)
        for channel in range(channels):
            plane = pictures[:, :, 5 * channel : 5 * channel + 5]
            np.testing.assert_array_equal(plane, np.rint(values[:, channel] * 255)[..., None].repeat(3, axis=3))
    np.testing.assert_array_equal(tinted(np.ones((1, 1, 1, 1)))[0, 0, 0], ORANGE)


@pytest.mark.parametrize(("height", "width", "columns"), [(2, 2, 2), (28, 28, 11), (5, 40, 16), (64, 48, 25)])
def test_pixels_of_a_sheet_are_whole_squares(height, width, columns):
    colours = np.array([(255, 0, 0), (0, 255, 0)], np.uint8)
    cells = colours[RANDOM(0).integers(0, 2, (columns, height, width))]
    png = draw_sheet("a sheet", "of squares", [Block("", ["c"] * columns, [("row", cells)] * 2)])
    sheet = np.asarray(Image.open(BytesIO(png)))
    inside = (sheet == colours[0]).all(axis=2) | (sheet == colours[1]).all(axis=2)
    edges = np.flatnonzero(np.diff(inside.any(axis=0), prepend=False, append=False))
    tops = np.flatnonzero(np.diff(inside.any(axis=1), prepend=False, append=False))
    assert (len(edges), len(tops)) == (2 * columns, 4)
    assert (edges % 2 == 0).all() and (tops % 2 == 0).all()  # noqa: PT018
    scale = (tops[1] - tops[0]) // height
    for row in range(2):
        for i, cell in enumerate(cells):
            found = sheet[tops[2 * row] : tops[2 * row + 1], edges[2 * i] : edges[2 * i + 1]]
            np.testing.assert_array_equal(found, cell.repeat(scale, axis=0).repeat(scale, axis=1))


def test_differences_have_the_colour_of_their_side():
    shape = (1, 1, 3)
    generator = _generator(
        lambda latents, *others: np.tile(np.float32([0.9, 0.9, 0.1]), (len(latents), 1)).reshape(-1, *shape),
        shape=shape,
    )
    training = np.array([0, 1, 1], np.uint8).reshape(1, *shape)
    exploration = explore(generator, PLAN, RealImages(name="one", training=training, test=training))
    assert (exploration.nearest.distances == 2).all()
    sheet = np.asarray(Image.open(BytesIO(draw_pictures(exploration)[-1].png)))
    oranges, blues = ((sheet == colour).all(axis=2).sum() for colour in (ORANGE, BLUE))
    assert oranges == blues > 0


@pytest.mark.parametrize(
    ("shape", "neuron"), [((1, 6, 5), "dbn"), ((1, 6, 5), "sbn"), ((2, 3, 7), "real"), ((3, 8, 8), "sbn")]
)
def test_the_page_stands_by_itself(shape, neuron):
    training = (RANDOM(0).random((20, *shape)) < 0.5).astype(np.uint8)
    real = RealImages(name="noise", training=training, test=training[:5])
    exploration = explore(_generator(shape=shape, neuron=neuron, name='<a "name">'), PLAN, real)
    pictures = draw_pictures(exploration)
    assert [picture.name for picture in pictures] == ["neurons", "preactivations", "interpolation", "nearest"]
    page = build_page(exploration, pictures)
    assert page.count('src="data:image/png;base64,') == 4
    assert not re.search(r'(src|href)="(?!data:)|url\(|@import|<script|<a "name">', page)
    assert len(re.findall(r'alt="[^"]{40,}"', page)) == 4
    assert "prefers-color-scheme: dark" in page
    captions = " ".join(picture.caption for picture in pictures)
    assert ("random numbers of the neurons are held along a row" in captions) == (neuron == "sbn")
    assert ("its image, below, is draw 1" in captions) == (neuron == "sbn")
    assert ("Colours are the three channels" in captions) == (shape[0] == 3)
    assert build_page(exploration, draw_pictures(exploration)) == page
