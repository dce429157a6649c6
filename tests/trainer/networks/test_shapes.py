"""Networks of any shape: sized by the rule of networks.py, and at 28x28x1 as they always were."""

import hashlib
import math

import pytest
import torch
from torch import nn

from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.config.training import DISCRIMINATORS, NETWORKS, TrainingConfig
from bgan.trainer.data.dataset import BinaryDataset
from bgan.trainer.export.graph import folded_layers
from bgan.trainer.export.polyphase import polyphase
from bgan.trainer.networks.build import network_sizes, parameter_count, sizes_text
from bgan.trainer.networks.discriminators import build_discriminator
from bgan.trainer.networks.generators import build_generator
from bgan.trainer.training.trainer import Trainer

SHAPES = [
    (1, 8, 8),
    (1, 9, 13),
    (1, 11, 31),
    (1, 28, 28),
    (1, 7, 200),
    (1, 200, 7),
    (2, 8, 128),
    (4, 48, 84),
    (3, 64, 64),
    (1, 127, 113),
    (1, 128, 128),
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


def test_long_thin_images_are_halved_along_their_length_first():
    generator = build_generator("doubling-cnn", ImageShape(1, 7, 112), 8)
    sizes = []
    for layer in generator.layers:
        if isinstance(layer, nn.ConvTranspose2d):
            layer.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    generator(torch.randn(2, 8))
    assert sizes == [(128, 7, 7), (64, 7, 14), (32, 7, 28), (16, 7, 56), (1, 7, 112)]


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
