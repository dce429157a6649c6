import pytest

from bgan.trainer.training.optimizers import (
    discriminator_steps_before,
    discriminator_steps_in,
    learning_rate_factor,
)


def test_bursts_come_in_the_first_25_iterations_and_every_500th():
    bursts = [i for i in range(1600) if discriminator_steps_in(i, steps=5, bursts=True) == 100]
    assert bursts == [*range(25), 500, 1000, 1500]
    assert {discriminator_steps_in(i, steps=5, bursts=True) for i in range(1600)} == {5, 100}
    assert {discriminator_steps_in(i, steps=3, bursts=False) for i in range(1600)} == {3}


def test_the_published_run_has_its_critic_steps():
    # 20 epochs of 1,093 iterations, 68 of them with 100 critic steps: 68 * 100 + 21,792 * 5.
    assert discriminator_steps_before(21_860, steps=5, bursts=True) == 115_760


@pytest.mark.parametrize("bursts", [True, False])
def test_steps_before_an_iteration_are_the_sum_of_those_in_the_earlier_ones(bursts):
    total = 0
    for iteration in range(1100):
        assert discriminator_steps_before(iteration, steps=4, bursts=bursts) == total
        total += discriminator_steps_in(iteration, steps=4, bursts=bursts)


@pytest.mark.parametrize(
    ("decay", "factors"),
    [
        ("none", [1, 1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25, 0]),
        ("cosine", [1, 0.8535534, 0.5, 0.1464466, 0]),
    ],
)
def test_the_learning_rate_falls_to_zero_after_the_last_step(decay, factors):
    found = [learning_rate_factor(step, total=8, decay=decay) for step in (0, 2, 4, 6, 8)]
    assert found == pytest.approx(factors, abs=1e-7)
