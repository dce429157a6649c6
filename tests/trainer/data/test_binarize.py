"""Values to bits, and bits to another size."""

import numpy as np
import pytest

from bgan.trainer.common.errors import ConfigError
from bgan.trainer.config.images import ImageOptions
from bgan.trainer.data.binarize import binarize, draw_levels, fit_to, probability_levels
from tests.kit.images import read_images

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (50, 1, 5, 7), np.uint8)


def test_nonzero_and_threshold():
    np.testing.assert_array_equal(binarize(GREY, "nonzero"), GREY > 0)
    np.testing.assert_array_equal(binarize(GREY, "threshold"), GREY >= 128)
    np.testing.assert_array_equal(binarize(GREY, "threshold", threshold=200), GREY > 200)
    np.testing.assert_array_equal(binarize(GREY / 255, "threshold"), GREY >= 128)
    deep = GREY.astype(np.uint16) * 257
    np.testing.assert_array_equal(binarize(deep, "threshold"), GREY >= 128)


def test_otsu_maximizes_the_variance_between_the_classes_of_each_image():
    for image, bits in zip(GREY[:8], binarize(GREY[:8], "otsu"), strict=True):
        values = image.ravel().astype(float)
        variances = {}
        for threshold in range(int(values.min()), int(values.max())):
            below, above = values[values <= threshold], values[values > threshold]
            variances[threshold] = len(below) * len(above) * (below.mean() - above.mean()) ** 2
        best = max(variances.values())
        chosen = values[~bits.ravel()].max()
        assert variances[int(chosen)] == pytest.approx(best)
        assert (values[bits.ravel()] > chosen).all()


def test_otsu_parts_two_kinds_of_values_wherever_they_lie():
    dark = RANDOM.random((9, 2, 8, 8)) < 0.4
    for low, high, dtype in ((90, 110, np.uint8), (-3.5, -3.1, np.float32), (4000, 60000, np.uint16)):
        np.testing.assert_array_equal(binarize(np.where(dark, low, high).astype(dtype), "otsu"), ~dark)
    np.testing.assert_array_equal(binarize(np.full((2, 1, 3, 3), 7), "otsu"), np.ones((2, 1, 3, 3), bool))
    assert not binarize(np.zeros((2, 1, 3, 3)), "otsu").any()


def test_bernoulli_draws_with_the_values_as_probabilities():
    pixels = np.tile(np.array([0, 51, 204, 255], np.uint8), (4000, 1, 1, 1))
    shares = binarize(pixels, "bernoulli").mean(axis=(0, 1, 2))
    np.testing.assert_allclose(shares, [0, 0.2, 0.8, 1], atol=0.03)
    assert (shares[[0, 3]] == [0, 1]).all()


def test_bernoulli_is_fixed_by_the_seed_and_the_index_alone():
    whole = binarize(GREY, "bernoulli", seed=3)
    np.testing.assert_array_equal(binarize(GREY[20:31], "bernoulli", seed=3, first_index=20), whole[20:31])
    np.testing.assert_array_equal(binarize(GREY / 255, "bernoulli", seed=3), whole)
    assert (binarize(GREY, "bernoulli", seed=4) != whole).mean() > 0.1
    same = binarize(np.full((2, 1, 9, 9), 0.5), "bernoulli")
    assert (same[0] != same[1]).any()


def test_levels_are_drawn_with_their_probability_anew_for_each_draw():
    levels = probability_levels(GREY / 255)
    np.testing.assert_array_equal(levels, GREY)
    draws = np.stack([draw_levels(GREY, range(50), seed=3, draw=draw) for draw in range(400)])
    np.testing.assert_array_equal(draws[0], binarize(GREY, "bernoulli", seed=3))
    error = 5 * np.sqrt(GREY / 255 * (1 - GREY / 255) / 400)
    assert (np.abs(draws.mean(axis=0) - GREY / 255) <= error).all()
    assert 0.1 < (draws[0] != draws[1]).mean() < 0.5
    some = draw_levels(GREY[[30, 7]], [30, 7], seed=3, draw=5)
    np.testing.assert_array_equal(some, draws[5][[30, 7]])


def test_values_that_are_no_probabilities_are_refused():
    for pixels in (np.full((1, 1, 2, 2), 1.5), np.full((1, 1, 2, 2), -0.1)):
        with pytest.raises(ConfigError, match="dynamic takes values as probabilities, but some are below 0 or"):
            probability_levels(pixels)
    with pytest.raises(ConfigError, match="values of type int64 have no usual range; dynamic takes floats in"):
        probability_levels(np.zeros((1, 1, 2, 2), np.int64))


def test_levels_are_brought_to_a_size():
    blocks = GREY[:, :, :4, :6].reshape(50, 1, 2, 2, 3, 2)
    np.testing.assert_array_equal(fit_to(GREY[:, :, :4, :6], (2, 3), "area"), np.round(blocks.mean(axis=(3, 5))))
    np.testing.assert_array_equal(fit_to(GREY[:, :, :4, :6], (2, 3), "max-pool"), blocks.max(axis=(3, 5)))
    padded = fit_to(GREY, (7, 7), "pad")
    np.testing.assert_array_equal(padded[:, :, 1:6], GREY)
    assert not padded[:, :, [0, 6]].any()


def test_bits_are_brought_to_a_size():
    bits = RANDOM.random((6, 2, 8, 12)) < 0.3
    padded = fit_to(bits, (11, 12), "pad")
    np.testing.assert_array_equal(padded[:, :, 1:9], bits)
    assert padded.sum() == bits.sum()
    np.testing.assert_array_equal(fit_to(bits, (6, 5), "crop"), bits[:, :, 1:7, 3:8])
    blocks = bits.reshape(6, 2, 4, 2, 4, 3)
    np.testing.assert_array_equal(fit_to(bits, (4, 4), "max-pool"), blocks.any(axis=(3, 5)))
    np.testing.assert_array_equal(fit_to(bits, (4, 4), "area"), blocks.sum(axis=(3, 5)) >= 3)
    for how in ("area", "max-pool"):
        np.testing.assert_array_equal(fit_to(bits, (16, 36), how), bits.repeat(2, axis=2).repeat(3, axis=3))
    assert fit_to(bits, (8, 12), "pad") is bits


@pytest.mark.parametrize(("size", "how"), [((8, 9), "pad"), ((7, 20), "pad"), ((8, 13), "crop"), ((9, 3), "crop")])
def test_sizes_that_do_not_fit(size, how):
    with pytest.raises(ValueError, match="it is 8x12, too"):
        fit_to(np.zeros((1, 1, 8, 12), bool), size, how)


def test_ink_is_inverted_before_it_is_pooled_and_padding_is_off(tmp_path):
    ink = RANDOM.random((9, 8, 8)) < 0.1
    np.save(tmp_path / "a.npy", np.where(ink, 0, 255).astype(np.uint8))
    options = ImageOptions(binarize="threshold", invert=True, size="4x4", fit="max-pool")
    bits, _ = read_images(tmp_path / "a.npy", options)
    np.testing.assert_array_equal(bits[:, 0], ink.reshape(9, 4, 2, 4, 2).any(axis=(2, 4)))
    bits, _ = read_images(tmp_path / "a.npy", ImageOptions(invert=True, size="10x10", fit="pad"))
    assert bits.sum() == ink.sum()
