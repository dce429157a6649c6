import numpy as np
import pytest

from bgan.trainer.evaluation.metrics.artifacts import (
    components,
    holes,
    isolated_pixels,
    jensen_shannon_divergence,
    pattern_counts,
)


def _drawn(*rows):
    """One image [1, 1, H, W] of rows of dots and hashes."""
    return np.array([[[[character == "#" for character in row] for row in rows]]], np.uint8)


CASES = [
    # drawing, isolated pixels, components, holes
    (("....", "....", "...."), 0, 0, 0),
    (("#...", "....", "..##"), 1, 2, 0),
    (("#...", ".#..", "...."), 0, 1, 0),  # corners touch: one 8-connected piece
    ((".#..", "#.#.", ".#.."), 0, 1, 1),  # a diamond: its inside is 4-connected to nothing
    (("####", "#..#", "####"), 0, 1, 1),
    (("###.", "#.##", "####"), 0, 1, 1),
    (("##.#", "#..#", "####"), 0, 1, 0),  # open to the border
    (("#.#", "...", "#.#"), 4, 4, 0),
    (("#",), 1, 1, 0),
]


@pytest.mark.parametrize(("rows", "alone", "pieces", "enclosed"), CASES)
def test_drawings(rows, alone, pieces, enclosed):
    image = _drawn(*rows)
    assert (isolated_pixels(image)[0], components(image)[0], holes(image)[0]) == (alone, pieces, enclosed)


def test_images_and_channels_are_apart():
    full, ring = _drawn("###", "###", "###"), _drawn("###", "#.#", "###")
    stack = np.concatenate([np.concatenate([full, ring], axis=1), np.concatenate([ring, ring], axis=1)])
    assert components(stack).tolist() == [2, 2]
    assert holes(stack).tolist() == [1, 2]
    assert isolated_pixels(stack).tolist() == [0, 0]


def test_patterns_of_an_image_by_hand():
    # A single pixel in 3x3: each of the nine positions sees it at another place of its window.
    (counts,) = pattern_counts(_drawn("...", ".#.", "..."))
    assert sorted(np.flatnonzero(counts)) == [1 << bit for bit in range(9)]
    assert counts[counts > 0].tolist() == [1] * 9
    both = pattern_counts(np.concatenate([_drawn("...", "...", "..."), _drawn("...", ".#.", "...")]))
    assert both[0, 0] == 9
    assert both[1].tolist() == counts.tolist()


def test_jensen_shannon_by_hand():
    first, second = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.5, 0.5])
    # Against the mean (1/4, 1/2, 1/4) each has half its mass at log2 2: 1/2 bit.
    assert jensen_shannon_divergence(first, second) == pytest.approx(0.5)
    assert jensen_shannon_divergence(first, first) == jensen_shannon_divergence(first, 1000 * first) == 0
    nearly = np.random.default_rng(2).random(5)  # rounding leaves -5e-17 of these
    nearly /= nearly.sum()
    assert jensen_shannon_divergence(nearly, np.nextafter(nearly, 1)) == 0
    assert jensen_shannon_divergence(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx(1)


def test_real_digits_have_the_known_artifacts(mnist_test):
    # What was measured apart from this code: 0.0056 isolated pixels; 0.61 holes in the first thousands.
    assert isolated_pixels(mnist_test).mean() == pytest.approx(0.0056, abs=5e-5)
    assert components(mnist_test).mean() == pytest.approx(1.03, abs=0.01)
    noisy = mnist_test ^ (np.random.default_rng(0).random(mnist_test.shape) < 0.001).astype(np.uint8)
    clean, noise = (pattern_counts(images).sum(axis=0) for images in (mnist_test, noisy))
    assert jensen_shannon_divergence(clean, noise) == pytest.approx(1.3e-3, rel=0.15)


@pytest.fixture(scope="module")
def mnist_test(mnist_dir):
    from bgan.trainer.data.catalog import load_dataset

    return load_dataset("mnist", data_dir=str(mnist_dir), split="test").images.numpy()
