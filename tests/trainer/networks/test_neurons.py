import math

import pytest
import torch

from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.networks.discriminators import build_discriminator
from bgan.trainer.networks.generators import build_generator
from bgan.trainer.networks.neurons import (
    IDENTITY,
    SIGMOID_ADJUSTED,
    OutputNeurons,
    annealed_slope,
    deterministic_binary,
    stochastic_binary,
)

LOGITS = torch.tensor([-30.0, -2.0, -0.5, 0.0, 0.25, 1.0, 4.0, 30.0], dtype=torch.float64)


def _derivative(slope, estimator):
    """The stand-in for the step's derivative, in plain Python."""
    if estimator == IDENTITY:
        return torch.full_like(LOGITS, slope)
    sigmas = [1 / (1 + math.exp(-slope * x)) for x in LOGITS.tolist()]
    return torch.tensor([slope * s * (1 - s) for s in sigmas], dtype=torch.float64)


def test_deterministic_neuron_fires_only_above_one_half():
    assert deterministic_binary(LOGITS).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_stochastic_neuron_fires_where_the_uniform_is_below_the_probability():
    logits = torch.zeros(4)
    uniforms = torch.tensor([0.0, 0.4999, 0.5, 0.9])
    assert stochastic_binary(logits, uniforms).tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("slope", [1.0, 2.5])
@pytest.mark.parametrize("estimator", [SIGMOID_ADJUSTED, IDENTITY])
@pytest.mark.parametrize("neuron", ["dbn", "sbn"])
def test_straight_through_gradient_is_its_formula(neuron, estimator, slope):
    logits = LOGITS.clone().requires_grad_()
    incoming = torch.linspace(-1, 1, len(LOGITS), dtype=torch.float64)
    layer = OutputNeurons(neuron, estimator=estimator, slope=slope)
    output = layer(logits, torch.full_like(LOGITS, 0.3))
    output.backward(incoming)
    torch.testing.assert_close(logits.grad, incoming * _derivative(slope, estimator), rtol=1e-12, atol=1e-12)


def test_real_valued_neuron_has_the_true_gradient_of_the_sigmoid():
    logits = LOGITS.clone().requires_grad_()
    assert torch.autograd.gradcheck(OutputNeurons("real"), (logits,))


@pytest.mark.parametrize("slope", [1.0, 3.0])
def test_stochastic_neuron_fires_as_often_as_its_probability(slope):
    count = 200_000
    generator = torch.Generator().manual_seed(11)
    for logit in (-2.0, -0.3, 0.0, 0.7):
        uniforms = torch.rand(count, generator=generator)
        frequency = stochastic_binary(torch.full((count,), logit), uniforms, slope=slope).mean().item()
        probability = 1 / (1 + math.exp(-slope * logit))
        # Four standard errors: a false alarm once in 16,000 draws, and the seed is fixed.
        assert abs(frequency - probability) < 4 * math.sqrt(probability * (1 - probability) / count)


def test_stochastic_neuron_without_uniforms_is_refused():
    with pytest.raises(ValueError, match="need uniforms"):
        OutputNeurons("sbn")(LOGITS)


@pytest.mark.parametrize("network", ["mlp", "cnn"])
@pytest.mark.parametrize("neuron", ["dbn", "sbn", "real"])
def test_every_neuron_passes_a_gradient_to_every_weight_of_the_generator(neuron, network):
    torch.manual_seed(0)
    shape = ImageShape(1, 28, 28)
    generator, critic = build_generator(network, shape, 16), build_discriminator(network, shape)
    layer = OutputNeurons(neuron)
    images = layer(generator(torch.randn(8, 16)), torch.rand(8, *shape))
    critic(images).mean().backward()
    for name, parameter in generator.named_parameters():
        if not name.endswith("bias"):  # a bias before batch norm has none
            assert parameter.grad.abs().sum() > 0, name


def test_slope_schedule_is_that_of_the_slides():
    assert annealed_slope(0, rate=1.1) == 1.0
    assert annealed_slope(19, rate=1.1) == pytest.approx(6.116, abs=5e-4)
    assert annealed_slope(19, rate=1.1, cap=4) == 4
    assert annealed_slope(3, rate=2) == 8
    assert annealed_slope(10**6, rate=1.1, cap=4) == 4
    assert annealed_slope(10**6, rate=1.1) == math.inf
