"""What a set of images is like, and its picture."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from bgan.trainer.data.dataset import BinaryDataset
from bgan.trainer.data.summary import draw_summary, summarize


def _dataset(images, labels=None):
    return BinaryDataset("set", torch.from_numpy(images.astype(np.uint8)), labels)


def test_figures_of_a_set():
    images = np.random.default_rng(0).random((5000, 2, 6, 9)) < 0.3
    images[:, 0, 0] = False
    images[:, 1, 5, :2] = True
    images[4999] = images[7]
    labels = torch.arange(5000) % 4
    summary = summarize(_dataset(images, labels))
    assert (summary.count, summary.image_shape, summary.duplicates) == (5000, (2, 6, 9), 1)
    assert (summary.always_off, summary.always_on) == (9, 2)
    assert summary.on_fraction == pytest.approx(images.mean())
    assert summary.classes == {"0": 1250, "1": 1250, "2": 1250, "3": 1250}
    assert summary.warnings == ()
    np.testing.assert_allclose(summary.mean, images.mean(axis=0))
    np.testing.assert_array_equal(summary.samples, images[np.arange(64) * 5000 // 64])


@pytest.mark.parametrize("shape", [(40, 1, 28, 28), (3, 3, 8, 8), (70, 4, 48, 84), (9, 1, 128, 4), (2, 5, 1, 300)])
def test_a_picture_of_any_shape_has_samples_and_mean(shape):
    images = np.random.default_rng(0).random(shape) < 0.5
    with Image.open(io.BytesIO(draw_summary(summarize(_dataset(images))))) as picture:
        pixels = np.asarray(picture)
    _, channels, height, width = shape
    scale = max(1, 64 // max(height, channels * width))
    first = images[0].transpose(1, 0, 2).reshape(height, channels * width).repeat(scale, 0).repeat(scale, 1)
    np.testing.assert_array_equal(pixels[2 : 2 + len(first), 2 : 2 + first.shape[1]], 255 * first)
    assert pixels.shape[1] < 4 * max(1200, channels * width)
