"""Networks that see the classes of images."""

import math

import pytest
import torch

from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.config.training import DISCRIMINATORS, NETWORKS
from bgan.trainer.networks.discriminators import build_discriminator
from bgan.trainer.networks.generators import build_generator
from bgan.trainer.reports.diagnosis.flips import discriminator_flip_differences
from bgan.trainer.training.objectives import gradient_penalty

SHAPE = ImageShape(2, 9, 11)
LABELS = torch.tensor([0, 2, 1, 1, 0])


def _critic(network):
    """A critic of three classes, in float64, whose classes differ."""
    torch.manual_seed(3)
    critic = build_discriminator(network, SHAPE, class_count=3).double()
    torch.nn.init.normal_(critic.layers[-1].class_weight)
    return critic


@pytest.mark.parametrize("network", NETWORKS)
def test_a_generator_makes_other_images_of_another_class(network):
    torch.manual_seed(1)
    generator = build_generator(network, SHAPE, 7, class_count=3).eval()
    latents = torch.randn(5, 7)
    logits = generator(latents, LABELS)
    assert logits.shape == (5, *SHAPE)
    others = generator(latents, torch.tensor([0, 1, 1, 1, 0]))
    assert [torch.equal(a, b) for a, b in zip(logits, others, strict=True)] == [True, False, True, True, True]
    inputs = generator.inputs(latents, LABELS)
    assert torch.equal(inputs[:, :7], latents)
    assert torch.equal(inputs[:, 7:], math.sqrt(7) * torch.nn.functional.one_hot(LABELS, 3))


@pytest.mark.parametrize("network", DISCRIMINATORS)
def test_a_critic_judges_an_image_as_one_of_its_class_and_has_its_gradient_in_closed_form(network):
    critic = _critic(network)
    images = torch.rand(5, *SHAPE, dtype=torch.float64)
    logits, gradient = critic.logits_and_input_gradient(images, LABELS)
    torch.testing.assert_close(logits, critic(images, LABELS))
    torch.testing.assert_close(gradient, critic.autograd_input_gradient(images, LABELS))
    torch.testing.assert_close(gradient, critic.input_gradient(images, LABELS))
    others = critic(images, (LABELS + 1) % 3)
    assert (others != logits).all()

    loss = gradient_penalty(critic, images, images.flip(0), torch.full((5, 1, 1, 1), 0.3).double(), LABELS)
    closed = torch.autograd.grad(loss, critic.layers[-1].class_weight)
    mixed = torch.lerp(images.flip(0), images, 0.3)
    norms = critic.autograd_input_gradient(mixed, LABELS).square().sum(1).add(1e-8).sqrt()
    expected = torch.autograd.grad((norms - 1).square().mean(), critic.layers[-1].class_weight)
    torch.testing.assert_close(closed, expected)


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_flips_of_pixels_are_judged_by_class(network):
    critic = _critic(network)
    images = torch.rand(2, *SHAPE, dtype=torch.float64).round()
    labels = torch.tensor([2, 0])
    found = discriminator_flip_differences(critic, lambda logits: logits, images, labels)
    for row, pixel in ((0, 0), (1, 100), (1, 197)):
        on, off = images[row : row + 1].clone(), images[row : row + 1].clone()
        on.view(-1)[pixel], off.view(-1)[pixel] = 1, 0
        expected = critic(on, labels[row : row + 1]) - critic(off, labels[row : row + 1])
        torch.testing.assert_close(found[row, pixel], expected[0].detach())


def test_a_critic_of_classes_begins_as_one_without():
    torch.manual_seed(4)
    plain = build_discriminator("mlp", SHAPE)
    torch.manual_seed(4)
    of_classes = build_discriminator("mlp", SHAPE, class_count=3)
    assert (of_classes.layers[-1].class_weight == 0).all()
    with pytest.raises(ValueError, match="with their labels"):
        of_classes(torch.rand(5, *SHAPE))
    assert plain(torch.rand(5, *SHAPE)).shape == of_classes(torch.rand(5, *SHAPE), LABELS).shape
