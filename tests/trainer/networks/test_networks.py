"""Networks: of any shape, sized by the rule of layers.py, and at 28x28x1 as they always were."""

import hashlib
import math

import pytest
import torch
from torch import nn

from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.config.training import DISCRIMINATORS, NETWORKS, TrainingConfig
from bgan.trainer.data.dataset import BinaryDataset
from bgan.trainer.exporting.graph import folded_layers
from bgan.trainer.exporting.polyphase import polyphase
from bgan.trainer.networks.build import network_sizes, parameter_count, sizes_text
from bgan.trainer.networks.discriminators import Discriminator, build_discriminator
from bgan.trainer.networks.generators import build_generator, set_output_bias
from bgan.trainer.networks.layers import (
    AffineNorm,
    ImageConvolution,
    ImageDeconvolution,
    PixelDeconvolution,
)
from bgan.trainer.training.objectives import gradient_penalty
from bgan.trainer.training.trainer import Trainer

SHAPES = [
    (1, 1, 30),
    (2, 5, 5),
    (1, 8, 8),
    (1, 9, 13),
    (1, 11, 31),
    (1, 28, 28),
    (1, 7, 200),
    (1, 200, 7),
    (2, 8, 128),
    (4, 48, 84),
    (1, 127, 113),
    (8, 128, 128),
]
# Of networks at 28x28x1, seed 7: the digest of names and shapes of their parameters, the sum of their magnitudes.
AS_EVER = {
    "generator mlp": ("2b558b27867a561e", 41614.66),
    "generator cnn": ("e98c0ad1cf853972", 9309.66),
    "generator doubling-cnn": ("d799556dc47b1902", 15337.29),
    "discriminator mlp": ("dc9cb62b1ecd87c8", 22290.69),
    "discriminator cnn": ("eacee713af2f5ab2", 8131.28),
    "discriminator wide-mlp": ("731cc69655062c5c", 49909.21),
    "discriminator strided-cnn": ("03f6ed2f4310480a", 6274.98),
}


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
        ("doubling-cnn", (1, 7, 112), [(128, 7, 7), (64, 7, 14), (32, 7, 28), (16, 7, 56), (1, 7, 112)]),
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


def _named(kind, name, shape):
    if kind == "generator":
        return build_generator(name, ImageShape(*shape), 128)
    return build_discriminator(name, ImageShape(*shape))


@pytest.mark.parametrize("name", AS_EVER)
def test_at_28x28x1_networks_and_their_first_weights_are_as_ever(name):
    """The models that come with bgan, and runs that go on, depend on it."""
    torch.manual_seed(7)
    network = _named(*name.split(), (1, 28, 28))
    layers, weights = AS_EVER[name]
    named = [(name, tuple(parameter.shape)) for name, parameter in network.named_parameters()]
    assert hashlib.sha256(repr(named).encode()).hexdigest()[:16] == layers
    found = sum(parameter.abs().sum(dtype=torch.float64).item() for parameter in network.parameters())
    assert found == pytest.approx(weights, rel=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_generator_of_any_shape_learns_and_is_of_a_sensible_size(network, shape):
    torch.manual_seed(1)
    generator = build_generator(network, ImageShape(*shape), 16)
    logits = generator(torch.randn(3, 16))
    assert logits.shape == (3, *shape)
    logits.square().sum().backward()
    for parameter in generator.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    first = next(parameter for parameter in generator.parameters() if parameter.ndim > 1)
    assert first.grad.abs().sum() > 0
    most = 18e6 if network == "mlp" else 2e6
    assert 5e3 < parameter_count(generator) < most


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("network", DISCRIMINATORS)
def test_a_discriminator_of_any_shape_has_its_gradients_and_is_of_a_sensible_size(network, shape):
    torch.manual_seed(1)
    critic = build_discriminator(network, ImageShape(*shape))
    logits, gradient = critic.logits_and_input_gradient(torch.rand(2, *shape).round())
    assert logits.shape == (2,)
    assert gradient.shape == (2, math.prod(shape))
    assert (gradient != 0).any(dim=1).all()
    (logits.sum() + gradient.square().sum()).backward()
    assert all(torch.isfinite(each.grad).all() for each in critic.parameters() if each.grad is not None)
    most = 18e6 if network.endswith("mlp") else 1.5e6
    assert 1e4 < parameter_count(critic) < most


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("network", ["cnn", "doubling-cnn"])
def test_the_layers_that_are_exported_do_what_the_trained_ones_do(network, shape):
    torch.manual_seed(2)
    layers = folded_layers(build_generator(network, ImageShape(*shape), 8).eval().layers, 1.5)
    rewritten = polyphase(layers)
    assert not any(isinstance(layer, nn.ConvTranspose2d) for layer in rewritten.modules())
    latents = torch.randn(2, 8)
    with torch.no_grad():
        torch.testing.assert_close(rewritten(latents), layers(latents), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 7, 200), (4, 48, 84), (3, 24, 40), (1, 11, 31)], ids=str)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_step_of_training_is_taken_on_any_shape(network, shape):
    images = (torch.rand(12, *shape, generator=torch.Generator().manual_seed(2)) < 0.2).to(torch.uint8)
    config = TrainingConfig.resolve(
        network=network,
        discriminator="mlp+strided-cnn",
        objective="relativistic",
        training_neuron="sbn",
        estimator="reinmax",
        output_bias="mean",
        batch_size=4,
        latent_size=8,
    )
    trainer = Trainer(config, BinaryDataset("random", images, None), torch.device("cpu"))
    before = [parameter.clone() for parameter in trainer.generator.parameters()]
    losses = trainer.train_step()
    assert math.isfinite(losses.generator)
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.generator.parameters(), strict=True))
    assert trainer.sample_grid().shape == (64, *shape)


def test_sizes_are_said_and_are_those_of_the_networks():
    config = TrainingConfig.resolve(network="doubling-cnn", discriminator="mlp+strided-cnn", latent_size=9)
    shape = ImageShape(4, 48, 84)
    generator = build_generator("doubling-cnn", shape, 9, class_count=3)
    critics = [build_discriminator(name, shape, class_count=3) for name in ("mlp", "strided-cnn")]
    expected = parameter_count(generator), sum(map(parameter_count, critics))
    assert network_sizes(config, shape, 3) == expected
    assert sizes_text(config, shape, 3) == (
        f"images 4x48x84 of 3 classes: generator doubling-cnn, {expected[0]:,} parameters; "
        f"discriminator mlp+strided-cnn, {expected[1]:,}"
    )
