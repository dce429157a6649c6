import pytest
import torch

from bgan.trainer.networks import (
    Discriminator,
    ImageShape,
    MLPDiscriminator,
    build_discriminator,
    build_generator,
    parameter_count,
)
from bgan.trainer.objectives import gradient_penalty

SHAPES = [(1, 28, 28), (1, 8, 8), (3, 32, 20), (4, 48, 84), (1, 64, 64), (2, 5, 5), (1, 1, 30), (1, 128, 128)]


@pytest.mark.parametrize(
    ("network", "generator_count", "discriminator_count"),
    [
        # Without the published code's affine norm at the output (2 * 784 and 2 parameters), these are
        # its 939,312 and 216,227; the discriminators are the same.
        ("mlp", 939_312 - 2 * 784, 533_505),
        ("cnn", 216_227 - 2, 313_985),
    ],
)
def test_parameter_counts_are_the_published_ones(network, generator_count, discriminator_count):
    shape = ImageShape(1, 28, 28)
    assert parameter_count(build_generator(network, shape, 128)) == generator_count
    assert parameter_count(build_discriminator(network, shape)) == discriminator_count


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_networks_fit_any_shape(network, shape):
    shape = ImageShape(*shape)
    logits = build_generator(network, shape, 7)(torch.randn(3, 7))
    assert logits.shape == (3, *shape)
    assert build_discriminator(network, shape)(logits).shape == (3,)


def test_cnn_generator_grows_as_the_published_one():
    sizes = []
    generator = build_generator("cnn", ImageShape(1, 28, 28), 128)
    for layer in generator.layers:
        if isinstance(layer, torch.nn.ConvTranspose2d):
            layer.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    generator(torch.randn(2, 128))
    assert sizes == [(128, 2, 2), (64, 6, 6), (32, 13, 13), (1, 28, 28)]


def test_closed_form_of_the_input_gradient_is_autograds():
    torch.manual_seed(3)
    critic = build_discriminator("mlp", ImageShape(2, 6, 5)).double()
    assert isinstance(critic, MLPDiscriminator)
    images = torch.rand(16, 2, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(critic.input_gradient(images), Discriminator.input_gradient(critic, images))


def test_closed_form_penalty_has_the_weight_gradients_of_double_backward(monkeypatch):
    torch.manual_seed(4)
    critic = build_discriminator("mlp", ImageShape(1, 7, 7)).double()
    real, fake = (torch.rand(32, 1, 7, 7, dtype=torch.float64) for _ in range(2))
    mix = torch.rand(32, 1, 1, 1, dtype=torch.float64)

    def penalty_and_gradients():
        critic.zero_grad()
        penalty = gradient_penalty(critic, real, fake, mix)
        penalty.backward()
        return penalty, {
            name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
            for name, parameter in critic.named_parameters()
        }

    closed, closed_gradients = penalty_and_gradients()
    monkeypatch.setattr(MLPDiscriminator, "input_gradient", Discriminator.input_gradient)
    reference, reference_gradients = penalty_and_gradients()
    torch.testing.assert_close(closed, reference)
    torch.testing.assert_close(closed_gradients, reference_gradients)
    assert any(gradient.abs().sum() > 0 for gradient in reference_gradients.values())


def test_same_seed_gives_the_same_weights():
    def weights():
        torch.manual_seed(1)
        return build_generator("cnn", ImageShape(1, 8, 8), 4).state_dict()

    torch.testing.assert_close(weights(), weights(), rtol=0, atol=0)
