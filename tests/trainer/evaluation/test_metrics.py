"""Distances, manifolds, classes, memorization and preactivations against formulas and brute force."""

import io
import math
from contextlib import redirect_stdout

import numpy as np
import pytest

from bgan.trainer.evaluation.metrics import features as measures
from bgan.trainer.evaluation.metrics import manifold, memorization, preactivations
from bgan.trainer.evaluation.metrics.errors import (
    GROUPS,
    Estimate,
    group_of_rows,
    is_distinct,
    jackknife_error,
    jackknife_estimate,
    mean_estimate,
)
from bgan.trainer.evaluation.metrics.manifold import precision_recall_density_coverage
from bgan.trainer.evaluation.metrics.table import Figures, indistinct

RANDOM = np.random.default_rng


def test_frechet_distance_of_known_gaussians():
    # Diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2, exact for samples that have exactly these moments.
    base = RANDOM(0).normal(size=(500, 3))
    base = base - base.mean(axis=0)
    white = base @ np.linalg.inv(np.linalg.cholesky(np.cov(base, rowvar=False))).T
    first, second = white * [1, 2, 3] + [0, 1, 0], white * [2, 2, 1] + [3, 1, -1]
    assert measures.frechet_distance(first, second) == pytest.approx(9 + 1 + 1 + 0 + 4)
    assert measures.frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_degenerate_features_is_finite():
    features = RANDOM(1).normal(size=(100, 4)) * [1, 0, 1, 0]
    assert measures.frechet_distance(features, features + 1) == pytest.approx(4, abs=1e-6)


def test_squared_mmd_is_the_double_loop(monkeypatch):
    monkeypatch.setattr(measures, "_ROWS", 3)
    x, y = RANDOM(2).normal(size=(7, 4)), RANDOM(3).normal(size=(6, 4)) + 0.5

    def kernel(a, b):
        return (float(a @ b) / 4 + 1) ** 3

    within = [np.mean([kernel(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]) for s in (x, y)]
    across = np.mean([kernel(a, b) for a in x for b in y])
    found = measures.squared_mmd(x, y)
    assert found.value == pytest.approx(sum(within) - 2 * across)
    # The error is the jackknife's: of the values without each of the samples.
    without = [measures.squared_mmd(np.delete(x, i, axis=0), y).value for i in range(7)]
    assert found.error == pytest.approx(jackknife_error(without))


def test_kernel_distance_is_unbiased_and_sees_a_shift():
    x, y = RANDOM(4).normal(size=(400, 8)), RANDOM(5).normal(size=(400, 8))
    same = measures.kernel_distance(x, y)
    assert abs(same.value) < 10  # 33 with the diagonals of the kernels
    assert measures.kernel_distance(x + 0.3, y).value > 100
    assert measures.kernel_distance(7 * x, 7 * y) == pytest.approx(same)


def test_manifold_metrics_are_those_of_brute_force():
    real, fake, k = RANDOM(6).normal(size=(60, 2)), RANDOM(7).normal(size=(60, 2)) * 0.7 + 0.4, 3

    def radius(points, i):
        return sorted(np.linalg.norm(points - points[i], axis=1))[k]  # the point itself comes first

    r_real, r_fake = ([radius(points, i) for i in range(60)] for points in (real, fake))
    near = np.array([[np.linalg.norm(f - r) for f in fake] for r in real])  # [real, fake]
    in_real, in_fake = near < np.array(r_real)[:, None], near < np.array(r_fake)[None, :]
    expected = {
        "precision": in_real.any(axis=0).mean(),
        "recall": in_fake.any(axis=1).mean(),
        "density": in_real.sum(axis=0).mean() / k,
        "coverage": (near.min(axis=1) < r_real).mean(),
    }
    found = precision_recall_density_coverage(real, fake, neighbours=k)
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(expected)
    assert 0 < expected["coverage"] < 1
    # Recall and coverage without each group of samples in turn, from the start.
    parts = [fake[group_of_rows(60) != group] for group in range(GROUPS)]
    left = [precision_recall_density_coverage(real, part, neighbours=k) for part in parts]
    for name in ("recall", "coverage"):
        assert found[name].error == pytest.approx(jackknife_error([each[name].value for each in left])), name
        assert found[name].error > 0.01


@pytest.mark.parametrize(("real_count", "fake_count"), [(1_300, 1_300), (1_300, 700), (400, 1_200)])
def test_manifold_metrics_are_those_of_prdc(real_count, fake_count):
    """Of several blocks, the last of which is not full."""
    prdc = pytest.importorskip("prdc")
    real, fake = RANDOM(8).normal(size=(real_count, 16)), RANDOM(9).normal(size=(fake_count, 16)) * 0.9 + 0.1
    found = precision_recall_density_coverage(real.astype(np.float32), fake.astype(np.float32))
    with redirect_stdout(io.StringIO()):  # it prints
        expected = prdc.compute_prdc(
            real.astype(np.float32), fake.astype(np.float32), nearest_k=manifold.NEIGHBOURS
        )
    assert {name: each.value for name, each in found.items()} == pytest.approx(expected, abs=1e-3)
    assert all(0.05 < value < 1.5 for value in expected.values())


def test_manifold_metrics_take_memory_for_a_block_alone(monkeypatch):
    """A block of distances has no more than so many numbers, however many images there are on either side."""
    monkeypatch.setattr(manifold, "_BLOCK_NUMBERS", 10_000)
    sizes, distances = [], manifold._squared_distances

    def noted(x, y):
        sizes.append(len(x) * len(y))
        return distances(x, y)

    real, fake = RANDOM(6).normal(size=(300, 2)), RANDOM(7).normal(size=(900, 2))
    whole = precision_recall_density_coverage(real, fake)
    monkeypatch.setattr(manifold, "_squared_distances", noted)
    assert precision_recall_density_coverage(real, fake) == whole
    assert max(sizes) <= 10_000
    assert sum(sizes) == 300 * 300 + 900 * 900 + 300 * 900


def test_classes_by_hand():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.1, 0.9, 0.0], [0.6, 0.4, 0.0]], np.float32)
    shares = measures.class_shares(probabilities)
    assert shares.tolist() == [0.75, 0.25, 0]
    assert measures.entropy(shares) == pytest.approx(0.75 * math.log2(4 / 3) + 0.25 * 2)
    even = np.full(3, 1 / 3)
    assert measures.missing_classes(shares, even) == 1
    assert measures.share_deviation(shares, even) == pytest.approx(1.25)
    assert measures.share_deviation(np.array([0.5, 0.5, 0]), np.array([0.4, 0.6, 0])) == pytest.approx(0.25)
    assert measures.is_ambiguous(np.array([[0.96, 0.04], [0.94, 0.06], [0.1, 0.9]])).tolist() == [
        False,
        True,
        True,
    ]
    assert measures.missing_classes(np.array([0.0333, 0.0334, 0.9333]), even) == 1
    assert measures.missing_classes(np.full(200, 1 / 200), np.full(200, 1 / 200)) == 0
    assert measures.missing_classes(np.array([0.5, 0.5, 0, 0]), np.array([0.5, 0.49, 0.01, 0])) == 1


def test_inception_score_lies_between_one_and_the_classes():
    assert measures.inception_score(np.eye(10, dtype=np.float32).repeat(3, axis=0)) == pytest.approx(10, rel=1e-6)
    assert measures.inception_score(np.full((5, 10), 0.1, np.float32)) == pytest.approx(1)
    collapsed = np.eye(10, dtype=np.float32)[np.zeros(20, int)]
    assert measures.inception_score(collapsed) == pytest.approx(1)


def test_nearest_distances_are_those_of_brute_force():
    images, training = ((RANDOM(s).random((n, 2, 5, 4)) < 0.4).astype(np.uint8) for s, n in ((8, 30), (9, 50)))
    training[17] = images[3]
    expected = [min(int((image != other).sum()) for other in training) for image in images]
    found = memorization.nearest_distances(images, training)
    assert found.tolist() == expected
    assert found[3] == 0 < found[4]


def test_unique_share():
    images = np.zeros((4, 1, 3, 3), np.uint8)
    images[1, 0, 2, 2] = images[2, 0, 2, 2] = 1
    assert memorization.unique_share(images) == 0.5


def test_histogram_of_preactivations_is_that_of_floor_255_p():
    values = [0.0, 1 / 255 - 1e-6, 1 / 255 + 1e-6, 0.5, 1 - 1e-6, 1.0, 1.0, 1.0]
    histogram = preactivations.preactivation_histogram(np.array(values, np.float32))
    assert (histogram[0], histogram[1], histogram[127], histogram[254], histogram[255]) == (
        2 / 8, 1 / 8, 1 / 8, 1 / 8, 3 / 8
    )  # fmt: skip
    assert histogram.sum() == 1


def test_notch_ratio():
    def ratio(values):
        return preactivations.notch_ratio(preactivations.densities(values[None]))

    def depth(values):
        return preactivations.notch_depth(preactivations.densities(values[None]))

    flat = ((np.arange(10**6) + 0.5) / 10**6).astype(np.float32)
    assert ratio(flat) == pytest.approx(1, abs=1e-3)
    halved = np.concatenate([flat[(flat <= 0.48) | (flat >= 0.52)], flat[(flat > 0.48) & (flat < 0.5)]])
    assert ratio(halved) == pytest.approx(0.5, abs=1e-3)
    assert depth(halved) == pytest.approx(0.5, abs=1e-3)
    step = np.concatenate([flat[flat < 0.5], flat])  # twice as dense under 0.5: a step, no notch
    assert ratio(step) == pytest.approx(1, abs=1e-3)
    assert depth(step) == pytest.approx(1.5, abs=1e-3)
    assert math.isnan(ratio(np.array([0.0, 1.0], np.float32)))


def test_entropies_and_the_middle():
    p = np.array([0, 1, 0.5, 0.25], np.float32)
    assert preactivations.binary_entropies(p).tolist() == pytest.approx(
        [0, 0, 1, 0.25 * 2 + 0.75 * math.log2(4 / 3)]
    )
    beyond = np.nextafter(np.array([0, 1], np.float32), np.array([-1, 2], np.float32))  # onnxruntime's sigmoid can
    assert preactivations.binary_entropies(beyond).tolist() == [0, 0]
    assert preactivations.is_in_the_middle(p).tolist() == [False, False, True, True]


def test_distances_of_draws_are_those_of_images():
    p = RANDOM(5).random((4, 1, 6, 5), np.float32) ** 3
    draws = RANDOM(6).random((2, 20_000, *p.shape), np.float32) < p
    for distances, second in (("draw_distances", draws[1]), ("latent_distances", np.roll(draws[1], 1, axis=1))):
        expected = (draws[0] != second).sum(axis=(2, 3, 4)).mean(axis=0)
        assert getattr(preactivations, distances)(p) == pytest.approx(expected, rel=0.02)
    thresholded = (p > 0.5).astype(np.float32)
    assert preactivations.draw_distances(thresholded).tolist() == [0] * 4


def test_the_error_of_a_mean_counts_images_and_not_pixels():
    pixels = np.repeat((RANDOM(10).random((400, 1)) < 0.3).astype(np.uint8), 50, axis=1)
    found = mean_estimate(pixels)
    assert found.value == pixels.mean()
    assert found.error == pytest.approx(np.std(pixels[:, 0], ddof=1) / 20)


def test_the_jackknife_finds_the_error_of_a_mean_and_of_what_moves_with_it():
    errors = []
    for seed in range(40):
        values = RANDOM(seed).normal(size=500)
        errors.append(
            jackknife_estimate(lambda rows: float(rows.mean()) ** 3 + 3 * float(rows.mean()), values).error
        )
    # The derivative at 0 is 3, so the error is 3 / sqrt(500); that of 20 groups is uncertain by 16 %.
    assert np.mean(errors) == pytest.approx(3 / math.sqrt(500), rel=0.1)
    assert np.std(errors) / np.mean(errors) < 0.3


def test_the_error_of_a_frechet_distance_is_how_it_moves_with_the_samples():
    real = RANDOM(20).normal(size=(1000, 6))
    draws = [RANDOM(seed).normal(size=(1000, 6)) * 1.2 + 0.2 for seed in range(21, 51)]
    found = [jackknife_estimate(lambda rows: measures.frechet_distance(rows, real), draw) for draw in draws]
    moves = np.std([each.value for each in found], ddof=1)  # uncertain by 13 %
    assert np.mean([each.error for each in found]) == pytest.approx(moves, rel=0.3)


def test_the_groups_are_drawn_and_as_large_as_one_another():
    groups = group_of_rows(1000)
    assert np.bincount(groups).tolist() == [50] * GROUPS
    assert max(np.bincount(groups[::10])) < 20  # images of ten classes in turn: a group has some of each


def test_figures_differ_beyond_two_errors_of_their_difference():
    assert not is_distinct(Estimate(5.0, 0.3), Estimate(5.9, 0.4))  # the error of the difference is 0.5
    assert is_distinct(Estimate(5.0, 0.3), Estimate(6.1, 0.4))
    assert is_distinct(Estimate(1), Estimate(0))
    values = {"frechet_distance": 5.0, "recall": 0.9, "missing_classes": 0}
    first = Figures(values, {"frechet_distance": 0.3, "recall": 0.001})
    second = Figures({**values, "frechet_distance": 5.9, "recall": 0.91}, {"frechet_distance": 0.4})
    assert indistinct(first, second) == ["Frechet distance", "missing classes"]
    shown = [first.text(key) for key in ("frechet_distance", "missing_classes", "coverage")]
    assert shown == ["5.000 ± 0.300", "0", "-"]


def test_a_figure_that_is_no_number_has_no_error_and_nor_has_one_image():
    assert jackknife_error([1.0, math.nan]) is None
    one = np.ones((1, 3))
    assert mean_estimate(one) == jackknife_estimate(np.mean, one) == Estimate(1, None)
    few = RANDOM(11).normal(size=9)  # fewer than there are groups: each is one
    assert jackknife_estimate(np.mean, few).error == pytest.approx(mean_estimate(few).error)
