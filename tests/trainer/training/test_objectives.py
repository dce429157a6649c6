import math

import pytest
import torch

from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.networks.discriminators import Discriminator, build_discriminator
from bgan.trainer.training.objectives import OBJECTIVES, clip_weights, gradient_penalty, gradient_square

REAL, FAKE = [0.5, -1.0, 2.0], [1.5, 0.0, -0.5]


def _log_sigmoid(x):
    return -math.log1p(math.exp(-x))


def _mean(values):
    return sum(values) / len(values)


@pytest.mark.parametrize("name", ["wgan", "wgan-gp"])
def test_wasserstein_losses(name):
    objective = OBJECTIVES[name]
    discriminator = objective.discriminator_loss(torch.tensor(REAL), torch.tensor(FAKE)).item()
    assert discriminator == pytest.approx(_mean(FAKE) - _mean(REAL))
    assert objective.generator_loss(torch.tensor(FAKE)).tolist() == [-x for x in FAKE]


def test_gan_losses_are_the_non_saturating_ones():
    objective = OBJECTIVES["gan"]
    discriminator = objective.discriminator_loss(torch.tensor(REAL), torch.tensor(FAKE)).item()
    expected = -_mean([_log_sigmoid(x) for x in REAL]) - _mean([_log_sigmoid(-x) for x in FAKE])
    assert discriminator == pytest.approx(expected)
    generator = objective.generator_loss(torch.tensor(FAKE)).tolist()
    assert generator == pytest.approx([-_log_sigmoid(x) for x in FAKE])


def test_relativistic_losses_compare_row_by_row():
    objective = OBJECTIVES["relativistic"]
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    expected = -_mean([_log_sigmoid(x - y) for x, y in zip(REAL, FAKE, strict=True)])
    assert objective.discriminator_loss(real, fake).item() == pytest.approx(expected)
    assert objective.compares_pairs
    expected = [-_log_sigmoid(y - x) for x, y in zip(REAL, FAKE, strict=True)]
    assert objective.generator_loss(fake - real).tolist() == pytest.approx(expected)


def test_gradient_square_by_hand():
    real, fake = torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    assert gradient_square(real, fake).item() == pytest.approx(((25 + 1) / 2 + (2 + 0) / 2) / 2)


def test_penalty_of_a_linear_critic_is_known():
    # D(x) = w . x has the gradient w everywhere, so the penalty is (|w| - 1)^2.
    linear = torch.nn.Linear(4, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0, 2.0, 4.0]]))  # |w| = 5
    critic = Discriminator(torch.nn.Sequential(torch.nn.Flatten(), linear))
    real, fake = torch.rand(6, 1, 2, 2), torch.rand(6, 1, 2, 2)
    assert gradient_penalty(critic, real, fake, torch.rand(6, 1, 1, 1)).item() == pytest.approx(16.0, rel=1e-5)


def test_penalty_is_taken_between_real_and_fake():
    seen = []

    class Spy(Discriminator):
        def input_gradient(self, images, labels=None):
            seen.append(images)
            return super().input_gradient(images, labels)

    critic = Spy(build_discriminator("mlp", ImageShape(1, 2, 2)).layers)
    real, fake = torch.ones(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)
    mix = torch.tensor([0.0, 0.25, 0.9]).reshape(3, 1, 1, 1)
    gradient_penalty(critic, real, fake, mix)
    torch.testing.assert_close(seen[0], mix.expand(3, 1, 2, 2))


def test_clipping_bounds_every_parameter():
    critic = build_discriminator("cnn", ImageShape(1, 8, 8))
    before = {name: parameter.clone() for name, parameter in critic.named_parameters()}
    clip_weights(critic, 0.01)
    for name, parameter in critic.named_parameters():
        torch.testing.assert_close(parameter, before[name].clamp(-0.01, 0.01))
    assert max(parameter.abs().max() for parameter in before.values()) > 0.01


def test_clipping_takes_in_affine_norms_but_no_batch_norm():
    for norm, clipped in (("affine", True), ("batch", False)):
        critic = build_discriminator("mlp", ImageShape(1, 8, 8), norm=norm)
        clip_weights(critic, 0.01)
        gains = [module.weight for name, module in critic.named_modules() if name in {"layers.2", "layers.5"}]
        assert len(gains) == 2
        for gain in gains:
            assert gain.unique().item() == pytest.approx(0.01 if clipped else 1.0)
