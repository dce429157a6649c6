"""Gates of averaged weights, held at their rate."""

import pytest
import torch

from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.config.presets import configure
from bgan.trainer.networks.build import configured_generator
from bgan.trainer.networks.gates import GatedGenerator
from bgan.trainer.training.gate_rates import hold_rates
from bgan.trainer.training.gate_shares import gate_shares

_COUNTS = (300, 100, 100, 100)


def _generator(**settings):
    own = {"dataset": "digits", "network": "mlp", "width": 0.1, "gates": 3, "gate_rate": 0.25, "conditional": True}
    generator = configured_generator(configure(**(own | settings)), ImageShape(1, 4, 4), len(_COUNTS))
    assert isinstance(generator, GatedGenerator)
    with torch.no_grad():
        generator.gate.bias.fill_(-3)
    return generator


@pytest.mark.parametrize("neuron", ["dbn", "sbn"])
@pytest.mark.parametrize("slope", [1.0, 2.0])
def test_each_gate_is_on_for_its_rate_of_the_images(neuron, slope):
    generator = _generator(gate_neuron=neuron)
    assert gate_shares(generator, slope).overall(_COUNTS).max() < 0.2
    hold_rates(generator, 0.25, slope, _COUNTS)
    assert gate_shares(generator, slope).overall(_COUNTS) == pytest.approx(0.25, abs=0.02)


def test_gates_by_labels_serve_whole_classes():
    generator = _generator(gate_by="labels")
    hold_rates(generator, 0.25, 1.0, _COUNTS)
    shares = gate_shares(generator, 1.0).by_class
    assert (shares.sum(axis=0) == 1).all()
    assert set(shares.flatten()) == {0.0, 1.0}


def test_random_gates_stay_as_they_are():
    generator = _generator(gate_by="random")
    hold_rates(generator, 0.25, 1.0, _COUNTS)
    assert (generator.gate.bias == -3).all()
