"""A refiner behind a generator that is not trained any more."""

import copy

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.networks.build import parameter_count
from bgan.trainer.networks.generators import build_generator
from bgan.trainer.networks.refiner import RefinedGenerator, build_refiner

SHAPE = ImageShape(2, 6, 7)


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_it_begins_as_the_generator_that_it_refines(network):
    torch.manual_seed(0)
    base = build_generator(network, SHAPE, 5, class_count=3)
    expected, latents, labels = copy.deepcopy(base).eval(), torch.randn(4, 5), torch.tensor([0, 1, 2, 0])
    refined = RefinedGenerator(base, build_refiner(SHAPE)).train()
    assert parameter_count(refined) == parameter_count(refined.refiner) > 0
    for _ in range(2):  # in training, too, statistics stay
        assert torch.equal(refined(latents, labels), expected(latents, labels))

    target, losses = torch.rand(4, *SHAPE).round(), []
    for _ in range(10):
        loss = binary_cross_entropy_with_logits(refined(latents, labels), target)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(refined.refiner.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(refined.refiner.parameters(), gradients, strict=True):
                parameter.sub_(gradient)
    assert losses[-1] < losses[0] - 0.01
    kept = base.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in expected.state_dict().items())
