import pytest
import torch
from torch import nn

from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.config.training import DISCRIMINATORS, NETWORKS
from bgan.trainer.networks.build import parameter_count
from bgan.trainer.networks.discriminators import Discriminator, build_discriminator
from bgan.trainer.networks.generators import build_generator, set_output_bias
from bgan.trainer.networks.layers import (
    AffineNorm,
    ImageConvolution,
    ImageDeconvolution,
    PixelDeconvolution,
)
from bgan.trainer.training.objectives import gradient_penalty

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
@pytest.mark.parametrize("network", NETWORKS)
def test_generators_fit_any_shape(network, shape):
    logits = build_generator(network, ImageShape(*shape), 7)(torch.randn(3, 7))
    assert logits.shape == (3, *shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_discriminators_fit_any_shape(discriminator, shape):
    assert build_discriminator(discriminator, ImageShape(*shape))(torch.rand(3, *shape)).shape == (3,)


def _sizes(network, inputs, kind):
    """The shapes that the layers of a kind put out."""
    sizes = []
    for layer in network.layers:
        if isinstance(layer, kind):
            layer.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    network(inputs)
    return sizes


@pytest.mark.parametrize(
    ("network", "shape", "sizes"),
    [
        ("cnn", (1, 28, 28), [(128, 2, 2), (64, 6, 6), (32, 13, 13), (1, 28, 28)]),
        ("doubling-cnn", (1, 28, 28), [(32, 7, 7), (16, 14, 14), (1, 28, 28)]),
        ("doubling-cnn", (3, 29, 5), [(64, 4, 5), (32, 8, 5), (16, 15, 5), (3, 29, 5)]),
    ],
)
def test_cnn_generators_grow_by_their_rule(network, shape, sizes):
    generator = build_generator(network, ImageShape(*shape), 128)
    assert _sizes(generator, torch.randn(2, 128), torch.nn.ConvTranspose2d) == sizes


@pytest.mark.parametrize(("channels", "kernel", "stride", "padding"), [(1, 4, 2, 1), (2, (3, 4), (1, 2), 1)])
@pytest.mark.parametrize("kinds", [(ImageConvolution, nn.Conv2d), (ImageDeconvolution, nn.ConvTranspose2d)])
def test_convolutions_by_patches_are_the_plain_ones(kinds, channels, kernel, stride, padding):
    """Values and all gradients, in float64."""
    found, expected = (
        kind(*((5, channels) if nn.ConvTranspose2d in kinds else (channels, 5)), kernel, stride, padding).double()
        for kind in kinds
    )
    expected.load_state_dict(found.state_dict())
    inputs = torch.randn(3, found.in_channels, 8, 9, dtype=torch.float64, requires_grad=True)
    outputs = [layer(inputs) for layer in (found, expected)]
    torch.testing.assert_close(*outputs)
    cotangent = torch.randn_like(outputs[0])
    gradients = [
        torch.autograd.grad(output, [inputs, *layer.parameters()], cotangent)
        for output, layer in zip(outputs, (found, expected), strict=True)
    ]
    torch.testing.assert_close(*gradients)


def test_the_strided_discriminator_halves():
    critic = build_discriminator("strided-cnn", ImageShape(1, 28, 28))
    assert _sizes(critic, torch.rand(2, 1, 28, 28), torch.nn.Conv2d) == [(16, 14, 14), (32, 7, 7)]


@pytest.mark.parametrize(("network", "norm"), [("mlp", "batch"), ("mlp", "affine")])
def test_the_output_bias_becomes_the_logit_of_the_mean_image(network, norm):
    generator = build_generator(network, ImageShape(2, 3, 4), 5, norm=norm)
    mean = torch.rand(2, 3, 4)
    mean[0, 0, 0], mean[1, 2, 3] = 0, 1
    set_output_bias(generator, mean)
    with torch.no_grad():
        for parameter in generator.parameters():
            if parameter.ndim == 2:
                parameter.zero_()
    found = torch.sigmoid(generator.eval()(torch.randn(6, 5)))
    torch.testing.assert_close(found, mean.clamp(0.01, 0.99).expand(6, 2, 3, 4))


@pytest.mark.parametrize("network", ["cnn", "doubling-cnn"])
def test_a_bias_by_channel_becomes_the_logit_of_its_mean(network):
    generator = build_generator(network, ImageShape(2, 9, 9), 5)
    mean = torch.rand(2, 9, 9)
    set_output_bias(generator, mean)
    torch.testing.assert_close(torch.sigmoid(generator.layers[-1].bias), mean.mean(dim=(1, 2)))


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
    ("wide-mlp", "none", (1, 7, 7)),
    ("strided-cnn", "none", (1, 28, 28)),
    ("strided-cnn", "affine", (2, 5, 19)),
]


@pytest.mark.parametrize(("network", "norm", "shape"), CRITICS)
def test_closed_form_of_the_input_gradient_is_autograds(network, norm, shape):
    critic = _critic(network, norm, shape)
    images = torch.rand(16, *shape, dtype=torch.float64)
    expected = critic.autograd_input_gradient(images)
    torch.testing.assert_close(critic.input_gradient(images), expected)
    logits, gradient = critic.logits_and_input_gradient(images)
    torch.testing.assert_close(logits, critic(images))
    torch.testing.assert_close(gradient, expected)


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


def test_a_deconvolution_of_one_pixel_is_the_transposed_convolution():
    layer = PixelDeconvolution(6, 4, (3, 5)).double()
    pixels = torch.randn(7, 6, 1, 1, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.conv_transpose2d(pixels, layer.weight, layer.bias)
    found = layer(pixels)
    torch.testing.assert_close(found, expected)
    inputs, direction = (pixels, *layer.parameters()), torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, direction), torch.autograd.grad(expected, inputs, direction)
    )
