"""Gradient estimators against the exact gradient, by enumeration of all states of a few neurons."""

import itertools
import math

import pytest
import torch

from bgan.trainer.common.errors import ConfigError
from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.config.estimators import ESTIMATORS
from bgan.trainer.config.training import TrainingConfig
from bgan.trainer.networks.discriminators import build_discriminator
from bgan.trainer.networks.generators import build_generator
from bgan.trainer.networks.neurons import REINMAX, SIGMOID_ADJUSTED, stochastic_binary
from bgan.trainer.training.estimators.build import build_estimator
from bgan.trainer.training.estimators.control_variates import conditional_logits
from bgan.trainer.training.estimators.score_function import log_ratio

UNBIASED = [name for name, entry in ESTIMATORS.items() if entry.is_unbiased]
SLOPE = 1.7
SEED = 17


def _estimator(name, shape, **settings):
    entry = ESTIMATORS[name]
    config = {"neuron": "sbn", "estimator": name, **({"objective": "gan"} if entry.needs_density_ratio else {})}
    torch.manual_seed(3)
    return build_estimator(TrainingConfig.resolve(**config, **settings), ImageShape(*shape))


def _states(neurons):
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=neurons)), dtype=torch.float64)


def _state_probabilities(scaled):
    p = torch.sigmoid(scaled)
    states = _states(len(scaled))
    return torch.where(states == 1, p, 1 - p).prod(dim=1)


def _exact_gradient(losses, logits, slope=SLOPE):
    """The gradient by the logits [N] of the expected loss, by enumeration."""
    logits = logits.clone().requires_grad_()
    expected = _state_probabilities(slope * logits) @ losses(_as_images(_states(len(logits)))).detach()
    return torch.autograd.grad(expected, logits)[0]


def _as_images(rows):
    return rows.reshape(len(rows), 1, 1, -1)


def _network_loss(neurons):
    """A curved loss with an offset, as a critic's."""
    torch.manual_seed(5)
    first, second = torch.nn.Linear(neurons, 16).double(), torch.nn.Linear(16, 1).double()
    first.requires_grad_(False)
    second.requires_grad_(False)
    return lambda images: 4 + 3 * second(torch.tanh(2 * first(images.flatten(1)))).squeeze(1)


def _quadratic_loss(neurons, *, diagonal):
    generator = torch.Generator().manual_seed(7)
    matrix = torch.randn(neurons, neurons, generator=generator, dtype=torch.float64)
    if not diagonal:
        matrix.fill_diagonal_(0)
    vector = torch.randn(neurons, generator=generator, dtype=torch.float64)

    def loss(images):
        rows = images.flatten(1)
        return ((rows @ matrix) * rows).sum(dim=1) + rows @ vector

    return loss


def _image_gradients(estimator, logits, losses, random, slope=SLOPE):
    """The estimate of each image's own gradient, [B, C, H, W]: the surrogate is a mean."""
    logits = logits.detach().clone().requires_grad_()
    estimator(logits, slope, losses, random).surrogate.backward()
    return len(logits) * logits.grad


def _draws(estimator, logits, losses, count, slope=SLOPE):
    """Estimates [count, N] at logits [N], after a few batches that trained what the estimator learns."""
    random = torch.Generator().manual_seed(SEED)
    repeated = _as_images(logits.expand(count, -1))
    for _ in range(5):
        _image_gradients(estimator, repeated[:1000], losses, random, slope)
    return _image_gradients(estimator, repeated, losses, random, slope).flatten(1)


def _expected_straight_through(losses, logits, derivative):
    """The exact expectation of a straight-through gradient: every state, with its probability."""
    states, weights = _states(len(logits)), _state_probabilities(SLOPE * logits)
    rows = logits.expand(len(states), -1).clone().requires_grad_()
    uniforms = torch.where(states == 1, 0.0, 1 - 1e-12)
    bits = stochastic_binary(rows, uniforms, slope=SLOPE, estimator=derivative)
    assert torch.equal(bits, states)
    losses(_as_images(bits)).sum().backward()
    return weights @ rows.grad


@pytest.mark.parametrize("neurons", [1, 3, 8])
def test_sigmoid_adjusted_is_exact_where_the_loss_is_linear_in_each_bit(neurons):
    logits = torch.linspace(-2, 1.5, neurons, dtype=torch.float64)
    linear, curved = (_quadratic_loss(neurons, diagonal=diagonal) for diagonal in (False, True))
    found = _expected_straight_through(linear, logits, SIGMOID_ADJUSTED)
    torch.testing.assert_close(found, _exact_gradient(linear, logits), rtol=1e-10, atol=1e-12)
    found = _expected_straight_through(curved, logits, SIGMOID_ADJUSTED)
    assert _relative_error(found, _exact_gradient(curved, logits)) > 0.01


@pytest.mark.parametrize("neurons", [1, 3, 8])
def test_reinmax_is_exact_where_the_loss_is_quadratic_in_each_bit(neurons):
    logits = torch.linspace(-2, 1.5, neurons, dtype=torch.float64)
    loss = _quadratic_loss(neurons, diagonal=True)
    found = _expected_straight_through(loss, logits, REINMAX)
    torch.testing.assert_close(found, _exact_gradient(loss, logits), rtol=1e-10, atol=1e-12)
    curved = _network_loss(neurons)
    found = _expected_straight_through(curved, logits, REINMAX)
    assert _relative_error(found, _exact_gradient(curved, logits)) > 0.01


@pytest.mark.parametrize("name", ["sigmoid-adjusted", "reinmax", "identity"])
def test_straight_through_estimators_draw_what_was_enumerated(name):
    logits, loss = torch.tensor([-1.0, 0.2, 0.6], dtype=torch.float64), _network_loss(3)
    draws = _draws(_estimator(name, (1, 1, 3)), logits, loss, 100_000)
    _assert_unbiased(draws, _expected_straight_through(loss, logits, name))


def _relative_error(found, exact):
    return (found - exact).norm() / exact.norm()


def _assert_unbiased(draws, exact):
    """The mean lies within 3 standard errors of `exact`, and those are small beside it. The seeds are fixed."""
    errors = draws.std(dim=0) / math.sqrt(len(draws))
    assert errors.norm() < 0.1 * exact.norm()
    assert ((draws.mean(dim=0) - exact).abs() < 3 * errors + 1e-12).all(), (draws.mean(dim=0), exact, errors)


@pytest.mark.parametrize("neurons", [2, 8])
@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased_estimators_have_the_exact_gradient_as_their_mean(name, neurons):
    logits, loss = torch.linspace(-2, 1.5, neurons, dtype=torch.float64), _network_loss(neurons)
    estimator = _estimator(name, (1, 1, neurons))
    _assert_unbiased(_draws(estimator.double(), logits, loss, 20_000), _exact_gradient(loss, logits))


@pytest.mark.parametrize("name", UNBIASED)
def test_saturated_neurons_give_finite_estimates_in_float32(name):
    critic = build_discriminator("mlp", ImageShape(1, 2, 2)).requires_grad_(False)
    logits = torch.tensor([-200.0, -30.0, 30.0, 200.0]).reshape(1, 1, 2, 2).repeat(50, 1, 1, 1)
    estimator = _estimator(name, (1, 2, 2))
    for _ in range(3):
        gradients = _image_gradients(estimator, logits, critic, torch.Generator().manual_seed(1))
        assert gradients.isfinite().all()
        assert gradients.abs().max() < 1e-3


@pytest.mark.parametrize("name", ["st-gumbel", "concrete"])
def test_relaxations_have_the_mean_that_quadrature_gives(name):
    temperature, logit, weight = 0.5, 0.4, 2.0
    uniforms = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    relaxed = torch.sigmoid((SLOPE * logit + torch.logit(uniforms)) / temperature)
    # The loss is w b^2: its slope is 2 w at 1 and 0 at 0, and 2 w s at a relaxed s.
    judged = (relaxed > 0.5) if name == "st-gumbel" else relaxed
    expected = (SLOPE * 2 * weight * judged * relaxed * (1 - relaxed) / temperature).mean()
    estimator = _estimator(name, (1, 1, 1), estimator_temperature=temperature)
    logits = torch.tensor([logit], dtype=torch.float64)
    draws = _draws(estimator, logits, lambda images: weight * images.flatten(1).square().sum(dim=1), 200_000)
    _assert_unbiased(draws, expected.reshape(1))


def test_gumbel_images_are_bits_with_the_probability_of_the_neuron():
    seen = []

    def loss(images):
        seen.append(images.detach())
        return images.flatten(1).sum(dim=1)

    logits = torch.full((100_000, 1, 1, 1), 0.4)
    _image_gradients(_estimator("st-gumbel", (1, 1, 1)), logits, loss, torch.Generator().manual_seed(2))
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}
    assert seen[0].mean().item() == pytest.approx(torch.sigmoid(torch.tensor(SLOPE * 0.4)).item(), abs=0.005)


@pytest.mark.parametrize(("name", "settings"), [("bgan", {"estimator_samples": 400}), ("maligan", {})])
def test_importance_weights_lead_to_the_reweighted_distribution(name, settings):
    """In the limit of many samples: -sum_b p(b) w(b) / Z (b - p), with w = D / (1 - D)."""
    logits = torch.tensor([-1.0, 0.2, 0.6], dtype=torch.float64)
    critic = _network_loss(3)

    def ratio_logit(images):
        return 0.5 * (critic(images) - 4)

    states = _states(3)
    weighted = _state_probabilities(SLOPE * logits) * ratio_logit(_as_images(states)).exp()
    exact = -SLOPE * (weighted / weighted.sum()) @ (states - torch.sigmoid(SLOPE * logits))
    estimator = _estimator(name, (1, 1, 3), **settings)
    count = 100_000 if name == "maligan" else 1_000
    draws = _draws(estimator, logits, lambda images: torch.nn.functional.softplus(-ratio_logit(images)), count)
    torch.testing.assert_close(draws.mean(dim=0), exact, rtol=0, atol=0.02 * exact.norm().item())


def test_the_density_ratio_is_found_in_the_loss():
    logits = torch.tensor([-80.0, -20.0, -1.0, 0.0, 1.0, 20.0, 80.0])
    torch.testing.assert_close(log_ratio(torch.nn.functional.softplus(-logits)), logits, rtol=1e-5, atol=1e-5)


def test_conditional_noise_gives_the_same_bits_and_their_distribution():
    logits = torch.full((200_000,), 0.7, dtype=torch.float64)
    random = torch.Generator().manual_seed(4)
    noise, again = (torch.logit(torch.rand(logits.shape, generator=random).double(), eps=1e-6) for _ in range(2))
    relaxed = logits + noise
    bits = (relaxed > 0).double()
    conditional = conditional_logits(logits, bits, again)
    assert torch.equal((conditional > 0).double(), bits)
    for bit in (0, 1):
        expected, found = (
            z[bits == bit].quantile(torch.linspace(0.1, 0.9, 9).double()) for z in (relaxed, conditional)
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("name", ["rebar", "relax"])
def test_control_variates_learn_to_vary_less(name):
    logits, loss = torch.linspace(-2, 1.5, 6, dtype=torch.float64), _network_loss(6)
    estimator = _estimator(name, (1, 1, 6)).double()
    before = _draws(estimator, logits, loss, 5_000).var(dim=0).sum()
    estimator.optimizer.param_groups[0]["lr"] = 0.02
    random = torch.Generator().manual_seed(1)
    for _ in range(100):
        _image_gradients(estimator, _as_images(logits.expand(100, -1)), loss, random)
        estimator.optimizer.step()
    assert _draws(estimator, logits, loss, 5_000).var(dim=0).sum() < 0.9 * before


@pytest.mark.parametrize("name", sorted(ESTIMATORS.keys() - {"maligan"}))
def test_the_loss_of_an_image_moves_the_gradient_of_that_image_alone(name):
    """All but MaliGAN, whose weights are shares of the batch."""
    loss, scales = _network_loss(4), torch.ones(6, dtype=torch.float64)
    logits = torch.randn(6, 1, 2, 2, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    found = []
    for scale in (1.0, 3.0):
        scales[2] = scale
        gradients = _image_gradients(
            _warm(name, loss), logits, lambda images: scales * loss(images), torch.Generator().manual_seed(9)
        )
        found.append(gradients)
    others = [0, 1, 3, 4, 5]
    torch.testing.assert_close(found[0][others], found[1][others], rtol=1e-12, atol=0)
    assert (found[0][2] - found[1][2]).abs().max() > 1e-3


def _warm(name, loss):
    """An estimator that has seen a batch, so that its baseline is set."""
    estimator = _estimator(name, (1, 2, 2)).double()
    logits = torch.zeros(50, 1, 2, 2, dtype=torch.float64)
    _image_gradients(estimator, logits, loss, torch.Generator().manual_seed(6))
    return estimator


@pytest.mark.parametrize(
    ("neuron", "name"),
    [
        *(("sbn", name) for name in ESTIMATORS),
        ("dbn", "sigmoid-adjusted"),
        ("dbn", "identity"),
        ("real", "identity"),
    ],
)
def test_every_estimator_passes_a_gradient_to_every_weight_of_the_generator(neuron, name):
    torch.manual_seed(0)
    shape = ImageShape(1, 12, 12)
    generator, critic = build_generator("cnn", shape, 16), build_discriminator("cnn", shape).requires_grad_(False)
    objective = "gan" if ESTIMATORS[name].needs_density_ratio else "wgan-gp"
    estimator = build_estimator(TrainingConfig.resolve(neuron=neuron, estimator=name, objective=objective), shape)
    losses = (lambda images: torch.nn.functional.softplus(-critic(images))) if objective == "gan" else critic
    estimate = estimator(generator(torch.randn(8, 16)), 1.0, losses, torch.Generator().manual_seed(1))
    estimate.surrogate.backward()
    assert estimate.value.isfinite()
    for parameter_name, parameter in generator.named_parameters():
        if not parameter_name.endswith("bias"):  # a bias before batch norm has none
            assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        *(
            ({"estimator": name}, "deterministic")
            for name in ESTIMATORS
            if not ESTIMATORS[name].is_deterministic_too
        ),
        ({"estimator": "reinmax", "neuron": "real"}, "real ones have an exact gradient"),
        *(
            (
                {"estimator": name, "neuron": "sbn", "objective": "gan", "discriminator_norm": "batch"},
                "batch normalization mixes the images",
            )
            for name in ESTIMATORS
            if ESTIMATORS[name].needs_image_losses
        ),
        *(
            ({"estimator": name, "neuron": "sbn", "objective": objective}, "choose --objective gan")
            for name in ("bgan", "maligan")
            for objective in ("wgan", "wgan-gp")
        ),
        (
            {"estimator": "bgan", "neuron": "sbn", "objective": "gan", "discriminator": "mlp+cnn"},
            "a single --discriminator",
        ),
        ({"estimator": "reinmax", "neuron": "sbn", "estimator_samples": 3}, "estimator-samples has no meaning"),
        ({"estimator_temperature": 0.3}, "estimator-temperature has no meaning for sigmoid-adjusted"),
        ({"estimator": "reinforce-loo", "neuron": "sbn", "estimator_samples": 1}, "must be at least 2"),
        ({"estimator": "concrete", "neuron": "sbn", "estimator_temperature": 0.0}, "must be above 0"),
    ],
)
def test_estimators_that_cannot_apply_are_refused_with_the_reason(settings, says):
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.resolve(**settings)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_estimators_own_numbers_are_filled_in():
    config = TrainingConfig.resolve(neuron="sbn", estimator="reinforce-loo")
    assert (config.neurons.estimator_samples, config.neurons.estimator_temperature) == (8, None)
    config = TrainingConfig.resolve(neuron="sbn", estimator="rebar", estimator_temperature=0.3)
    assert (config.neurons.estimator_samples, config.neurons.estimator_temperature) == (None, 0.3)
