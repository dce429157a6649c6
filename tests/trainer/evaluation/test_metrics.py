"""Distances, manifolds, classes, memorization and preactivations against formulas and brute force."""

import math

import numpy as np
import pytest

from bgan.trainer.evaluation.metrics import features as measures
from bgan.trainer.evaluation.metrics import memorization, preactivations
from bgan.trainer.evaluation.metrics.features import precision_recall_density_coverage

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
    assert measures.squared_mmd(x, y) == pytest.approx(sum(within) - 2 * across)


def test_kernel_distance_is_unbiased_and_sees_a_shift():
    x, y = RANDOM(4).normal(size=(400, 8)), RANDOM(5).normal(size=(400, 8))
    same = measures.kernel_distance(x, y)
    assert abs(same) < 10  # 33 with the diagonals of the kernels
    assert measures.kernel_distance(x + 0.3, y) > 100
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
    assert found == pytest.approx(expected)
    assert 0 < expected["coverage"] < 1


def test_classes_by_hand():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.1, 0.9, 0.0], [0.6, 0.4, 0.0]], np.float32)
    shares = measures.class_shares(probabilities)
    assert shares.tolist() == [0.75, 0.25, 0]
    assert measures.entropy(shares) == pytest.approx(0.75 * math.log2(4 / 3) + 0.25 * 2)
    even = np.full(3, 1 / 3)
    assert measures.missing_classes(shares, even) == 1
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
    flat = ((np.arange(10**6) + 0.5) / 10**6).astype(np.float32)
    assert preactivations.notch_ratio(flat) == pytest.approx(1, abs=1e-3)
    halved = np.concatenate([flat[(flat <= 0.48) | (flat >= 0.52)], flat[(flat > 0.48) & (flat < 0.5)]])
    assert preactivations.notch_ratio(halved) == pytest.approx(0.5, abs=1e-3)
    assert preactivations.notch_depth(halved) == pytest.approx(0.5, abs=1e-3)
    step = np.concatenate([flat[flat < 0.5], flat])  # twice as dense under 0.5: a step, no notch
    assert preactivations.notch_ratio(step) == pytest.approx(1, abs=1e-3)
    assert preactivations.notch_depth(step) == pytest.approx(1.5, abs=1e-3)
    assert math.isnan(preactivations.notch_ratio(np.array([0.0, 1.0], np.float32)))


def test_entropy_and_middle_mass():
    p = np.array([0, 1, 0.5, 0.25], np.float32)
    assert preactivations.binary_entropy(p) == pytest.approx((1 + 0.25 * 2 + 0.75 * math.log2(4 / 3)) / 4)
    assert preactivations.middle_mass(p) == 0.5


def test_entropy_of_a_probability_that_rounding_took_beyond_1():
    assert preactivations.binary_entropy(np.array([1 + 2e-7, 0.5], np.float32)) == 0.5


def test_distances_of_draws_are_those_of_images():
    p = RANDOM(5).random((4, 1, 6, 5), np.float32) ** 3
    draws = RANDOM(6).random((2, 20_000, *p.shape), np.float32) < p
    for distance, second in (("draw_distance", draws[1]), ("latent_distance", np.roll(draws[1], 1, axis=1))):
        expected = (draws[0] != second).sum(axis=(2, 3, 4)).mean()
        assert getattr(preactivations, distance)(p) == pytest.approx(expected, rel=0.005)
    thresholded = (p > 0.5).astype(np.float32)
    assert preactivations.draw_distance(thresholded) == 0
