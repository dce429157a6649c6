import pytest
import torch

from bgan.trainer.networks import (
    AffineNorm,
    Discriminator,
    ImageShape,
    build_discriminator,
    build_generator,
    parameter_count,
)
from bgan.trainer.objectives import gradient_penalty

SHAPES = [(1, 28, 28), (1, 8, 8), (3, 32, 20), (4, 48, 84), (1, 64, 64), (2, 5, 5), (1, 1, 30), (1, 128, 128)]


@pytest.mark.parametrize(
    ("network", "norm", "generator_count", "discriminator_count"),
    [
        ("mlp", "affine", 939_312, 533_505),
        ("cnn", "affine", 216_227, 313_985),
        # Batch norm in the hidden layers only: the published counts less those of the output's norm.
        ("mlp", "batch", 939_312 - 2 * 784, 533_505),
        ("cnn", "batch", 216_227 - 2, 313_985),
    ],
)
def test_parameter_counts_are_the_published_ones(network, norm, generator_count, discriminator_count):
    shape = ImageShape(1, 28, 28)
    assert parameter_count(build_generator(network, shape, 128, norm=norm)) == generator_count
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


def _critic(network, norm, shape):
    """A critic in float64 whose norms do something."""
    torch.manual_seed(3)
    critic = build_discriminator(network, ImageShape(*shape), norm=norm).double()
    for module in critic.modules():
        if isinstance(module, AffineNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias)
    return critic


CRITICS = [
    ("mlp", "none", (2, 6, 5)),
    ("mlp", "affine", (1, 7, 7)),
    ("cnn", "none", (1, 28, 28)),
    ("cnn", "affine", (2, 11, 14)),
    ("cnn", "none", (1, 1, 30)),
]


@pytest.mark.parametrize(("network", "norm", "shape"), CRITICS)
def test_closed_form_of_the_input_gradient_is_autograds(network, norm, shape):
    critic = _critic(network, norm, shape)
    images = torch.rand(16, *shape, dtype=torch.float64)
    torch.testing.assert_close(critic.input_gradient(images), critic.autograd_input_gradient(images))


@pytest.mark.parametrize(("network", "norm", "shape"), CRITICS)
def test_closed_form_penalty_has_the_weight_gradients_of_double_backward(network, norm, shape, monkeypatch):
    critic = _critic(network, norm, shape)
    real, fake = (torch.rand(32, *shape, dtype=torch.float64) for _ in range(2))
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
    monkeypatch.setattr(Discriminator, "input_gradient", Discriminator.autograd_input_gradient)
    reference, reference_gradients = penalty_and_gradients()
    torch.testing.assert_close(closed, reference)
    torch.testing.assert_close(closed_gradients, reference_gradients)
    assert any(gradient.abs().sum() > 0 for gradient in reference_gradients.values())


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_batch_norm_in_the_discriminator_makes_rows_depend_on_each_other(network):
    images = torch.rand(8, 1, 10, 10)
    torch.manual_seed(0)
    for norm, mixes in (("none", False), ("affine", False), ("batch", True)):
        critic = build_discriminator(network, ImageShape(1, 10, 10), norm=norm)
        assert critic.mixes_rows is mixes
        assert torch.allclose(critic(images)[:4], critic(images[:4]), atol=1e-5) is not mixes
        assert critic.input_gradient(images).shape == (8, 100)


def test_affine_norm_by_hand():
    norm = AffineNorm(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([3.0, -1.0]))
        norm.bias.copy_(torch.tensor([1.0, 0.5]))
    # gamma x / sqrt(1 + 0.001) + beta: 3 * 2 / 1.00049988 + 1 and -1 * 4 / 1.00049988 + 0.5.
    expected = torch.tensor([[6.997002, -3.498001]])
    torch.testing.assert_close(norm(torch.tensor([[2.0, 4.0]])), expected)
    planes = norm(torch.tensor([2.0, 4.0]).reshape(1, 2, 1, 1).expand(5, 2, 3, 4))
    torch.testing.assert_close(planes, expected.reshape(1, 2, 1, 1).expand(5, 2, 3, 4))


def test_affine_norm_stands_after_every_layer_of_the_generator():
    for network, channels in (("mlp", [1024, 784]), ("cnn", [128, 64, 32, 1])):
        generator = build_generator(network, ImageShape(1, 28, 28), 128, norm="affine")
        assert [len(m.weight) for m in generator.modules() if isinstance(m, AffineNorm)] == channels


def test_truncated_normal_weights():
    torch.manual_seed(0)
    generator = build_generator("mlp", ImageShape(1, 28, 28), 128, initialization="truncated-normal")
    for layer in generator.modules():
        if isinstance(layer, torch.nn.Linear):
            assert layer.bias.abs().max() == 0
            assert 0.0399 < layer.weight.abs().max() <= 0.04
            # A normal cut at two sigma has 0.8796 of its standard deviation; 131,072 weights or more.
            assert layer.weight.std().item() == pytest.approx(0.02 * 0.8796, rel=0.01)
    # Logits of the first layer have the spread that science.md measured: 0.02 * 0.88 * sqrt(128) * ...
    logits = build_generator("mlp", ImageShape(1, 28, 28), 128, norm="affine", initialization="truncated-normal")
    assert logits(torch.randn(500, 128)).std().item() == pytest.approx(0.079, rel=0.05)


def test_same_seed_gives_the_same_weights():
    def weights():
        torch.manual_seed(1)
        return build_generator("cnn", ImageShape(1, 8, 8), 4).state_dict()

    torch.testing.assert_close(weights(), weights(), rtol=0, atol=0)
