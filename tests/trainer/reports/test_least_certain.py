"""`bgan evaluate --picture`, on the bundled digits."""

import io

import numpy as np
import pytest
from PIL import Image

from bgan.trainer.data.catalog import load_dataset
from bgan.trainer.evaluation.reference import make_reference
from bgan.trainer.evaluation.samples import Samples
from bgan.trainer.reports import least_certain
from bgan.trainer.reports.least_certain import draw_least_certain
from tests.kit.cli import bgan, error_line

SHOWN = 16


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits"), load_dataset("digits", split="test")


@pytest.fixture(scope="module")
def reference(digits, tmp_path_factory, training):
    return make_reference(*digits, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def drawn(monkeypatch):
    """What is given to `draw_sheet`."""
    blocks = []
    draw = least_certain.draw_sheet
    monkeypatch.setattr(
        least_certain,
        "draw_sheet",
        lambda title, subject, found: blocks.extend(found) or draw(title, subject, found),
    )
    return blocks


def test_a_row_goes_from_the_least_certain_image_of_a_class_to_the_tenth_percentile(reference, drawn):
    images = reference.training
    picture = Image.open(io.BytesIO(draw_least_certain([Samples("two\x1bhundred", images)], reference)))
    assert picture.width > 16 * 28
    assert [block.heading for block in drawn] == ["two\\x1bhundred", "real test images"]
    _, probabilities = reference.classifier.describe(images)
    found, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    assert len(drawn[0].rows) == 10
    for number, (label, row) in enumerate(drawn[0].rows):
        own = np.flatnonzero(found == number)
        order = own[np.argsort(confidence[own], kind="stable")]
        np.testing.assert_array_equal(row[0, ..., 0], 255 * images[order[0], 0])
        np.testing.assert_array_equal(
            row[-1, ..., 0], 255 * images[order[max(round(len(own) / 10), SHOWN) - 1], 0]
        )
        assert label == f"{number}  {100 * (confidence[own] < 0.95).mean():.0f} %"


def test_a_class_of_few_images_has_a_row_that_ends_empty(reference, drawn):
    _, probabilities = reference.classifier.describe(reference.test)
    few = reference.test[probabilities.argmax(axis=1) == 3][:5]
    draw_least_certain([Samples("few", few)], reference)
    ((_, row),) = drawn[0].rows
    assert row[:5].any(axis=(1, 2, 3)).all()
    assert not row[5:].any()


def test_many_classes_are_those_with_the_most_ambiguous_images(reference, drawn, monkeypatch):
    monkeypatch.setattr(least_certain, "_CLASSES_AT_MOST", 3)
    draw_least_certain([], reference)
    _, probabilities = reference.classifier.describe(reference.test)
    found, ambiguous = probabilities.argmax(axis=1), probabilities.max(axis=1) < 0.95
    worst = np.argsort([-ambiguous[found == number].mean() for number in range(10)], kind="stable")[:3]
    assert [label.split()[0] for label, _ in drawn[0].rows] == [str(number) for number in sorted(worst)]


def test_the_command_refuses_it_before_the_work(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((64, 1, 28, 28), np.uint8))
    command = (
        "evaluate",
        tmp_path / "a.npy",
        "--dataset",
        "digits",
        "--no-labels",
        "--picture",
        tmp_path / "a.png",
    )
    assert "needs a classifier" in error_line(bgan(*command), 2)
    assert not (tmp_path / "a.png").exists()
