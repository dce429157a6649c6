import pytest
import torch

from bgan.trainer.common.errors import ConfigError
from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.config.augment import parse_augment
from bgan.trainer.config.training import TrainingConfig
from bgan.trainer.training.augmentation import ImageTransform, build_augmentation

SHAPE = ImageShape(3, 7, 12)


def _images(count=500):
    return (torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1)) < 0.4).float()


def _draw(text, count=500, seed=2):
    return build_augmentation(text, SHAPE).draw(count, torch.Generator().manual_seed(seed))


def _shifted(image, rows, columns):
    """The image [C, H, W] moved down and right, by hand."""
    result = torch.zeros_like(image)
    _, height, width = image.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row - rows < height and 0 <= column - columns < width:
                result[:, row, column] = image[:, row - rows, column - columns]
    return result


def test_shifts_fill_with_zeros_and_stay_within_their_bound():
    images, transform = _images(), _draw("translate:2")
    moved = transform(images)
    assert set(moved.unique().tolist()) == {0, 1}
    candidates = {
        (r, c): torch.stack([_shifted(image, r, c) for image in images[:40]])
        for r in range(-2, 3)
        for c in range(-2, 3)
    }
    found = [
        next(shift for shift, all_of in candidates.items() if torch.equal(all_of[i], moved[i])) for i in range(40)
    ]
    assert len(set(found)) > 10
    untouched = (transform.rows == torch.arange(7)).all(1) & (transform.columns == torch.arange(12)).all(1)
    assert 0.15 < untouched.float().mean() < 0.35  # a fifth of them, and one in 25 of the others


def test_an_eighth_of_each_side_is_what_no_number_means():
    augmentation = build_augmentation("translate", ImageShape(1, 48, 84))
    assert (augmentation.rows, augmentation.columns) == (6, 10)
    augmentation = build_augmentation("translate", ImageShape(1, 1, 3))
    assert (augmentation.rows, augmentation.columns) == (0, 1)


@pytest.mark.parametrize(("text", "axis"), [("hflip", 3), ("vflip", 2)])
def test_flips_are_of_about_two_images_in_five(text, axis):
    images = _images()
    moved = _draw(text)(images)
    flipped = torch.tensor([torch.equal(a, b) for a, b in zip(moved, images.flip(axis), strict=True)])
    same = torch.tensor([torch.equal(a, b) for a, b in zip(moved, images, strict=True)])
    assert (flipped ^ same).all()
    assert 0.33 < flipped.float().mean() < 0.47


def test_a_map_is_linear_and_its_gradient_is_its_transpose():
    images = _images(50).double().requires_grad_()
    transform = _draw("translate:3+hflip+vflip", 50)
    cotangent = torch.randn(50, *SHAPE, dtype=torch.float64)
    moved = transform(images)
    (gradient,) = torch.autograd.grad(moved, images, cotangent)
    torch.testing.assert_close((gradient * images).sum(), (cotangent * moved).sum())
    torch.testing.assert_close(transform(2 * images), 2 * moved)


def test_a_draw_follows_from_its_seed():
    first, again, other = _draw("translate+hflip"), _draw("translate+hflip"), _draw("translate+hflip", seed=3)
    assert isinstance(first, ImageTransform)
    assert torch.equal(first.rows, again.rows)
    assert torch.equal(first.columns, again.columns)
    assert not torch.equal(first.columns, other.columns)


@pytest.mark.parametrize(
    "text", ["", "translate:0", "rotate", "hflip+hflip", "translate+translate:2", "hflip,vflip"]
)
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(ConfigError, match=r"augment is .*; join some of translate"):
        TrainingConfig.resolve(augment=text)


def test_none_is_none_and_a_shift_may_not_empty_an_image():
    assert parse_augment("none") is None
    assert build_augmentation("none", SHAPE) is None
    with pytest.raises(ConfigError, match="move all of an image of 7x12 away; give fewer pixels"):
        build_augmentation("translate:7", SHAPE)
