import math

import pytest
import torch

from bgan.trainer.training.optimizers import (
    TFAdam,
    TFRMSprop,
    build_optimizer,
    discriminator_steps_before,
    discriminator_steps_in,
    learning_rate_factor,
)


class _One(torch.nn.Module):
    """A single weight, in float64 so that small differences show."""

    def __init__(self, value):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([value], dtype=torch.float64))

    def step(self, optimizer, gradient):
        self.weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        return self.weight.item()


def test_one_step_of_tf_rmsprop_by_hand():
    one = _One(1.0)
    optimizer = TFRMSprop(one.parameters(), lr=0.1)
    # The mean square goes from 1 to 0.9 * 1 + 0.1 * 0.5^2 = 0.925: 1 - 0.1 * 0.5 / sqrt(0.925).
    assert one.step(optimizer, 0.5) == pytest.approx(0.94801248, abs=1e-8)
    # Then to 0.9 * 0.925 + 0.1 * 2^2 = 1.2325: less 0.1 * 2 / sqrt(1.2325).
    assert one.step(optimizer, 2.0) == pytest.approx(0.76786154, abs=1e-8)


def test_epsilon_of_tf_rmsprop_is_inside_the_root():
    one = _One(1.0)
    optimizer = TFRMSprop(one.parameters(), lr=1.0)
    one.step(optimizer, 0.0)
    optimizer.state[one.weight]["square_avg"].zero_()
    # s = 0.1 * 1e-16: sqrt(s + 1e-8) is 1e-4, so a gradient of 1e-8 moves the weight by 1e-4 of lr.
    assert 1 - one.step(optimizer, 1e-8) == pytest.approx(1e-8 / math.sqrt(1e-17 + 1e-8), rel=1e-6)


@pytest.mark.parametrize("gradient", [0.3, 1e-8])
def test_steps_of_tf_adam_by_hand(gradient):
    one = _One(1.0)
    optimizer = build_optimizer("adam", "tensorflow", one, learning_rate=1e-2)
    assert isinstance(optimizer, TFAdam)
    m = v = 0.0
    expected = 1.0
    for t in (1, 2, 3):
        m, v = 0.5 * m + 0.5 * gradient, 0.9 * v + 0.1 * gradient**2
        expected -= 1e-2 * math.sqrt(1 - 0.9**t) / (1 - 0.5**t) * m / (math.sqrt(v) + 1e-8)
        assert one.step(optimizer, gradient) == pytest.approx(expected, abs=1e-9)


def test_the_forms_differ_where_gradients_are_small():
    moved = {}
    for name in ("adam", "rmsprop"):
        for form in ("torch", "tensorflow"):
            one = _One(0.0)
            moved[name, form] = -one.step(build_optimizer(name, form, one, learning_rate=1.0), 1e-8)
    # torch: 1e-8 / (1e-8 + 1e-8) and 1e-8 / (sqrt(0.01) * 1e-8 + 1e-8).
    assert moved["adam", "torch"] == pytest.approx(0.5)
    assert moved["rmsprop", "torch"] == pytest.approx(1 / 1.1)
    # TF1: sqrt(0.1) / 0.5 * 0.5e-8 / (sqrt(0.1) 1e-8 + 1e-8), and next to nothing from a mean square of 1.
    assert moved["adam", "tensorflow"] == pytest.approx(math.sqrt(0.1) / (math.sqrt(0.1) + 1))
    assert moved["rmsprop", "tensorflow"] == pytest.approx(1e-8 / math.sqrt(0.9), rel=1e-6)


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
