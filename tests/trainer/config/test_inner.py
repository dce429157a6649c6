"""Settings of gates and binary hidden layers: what follows from them, and what is refused."""

import pytest

from bgan.trainer.common.errors import ConfigError
from bgan.trainer.config.training import TrainingConfig
from bgan.trainer.networks.build import sizes_text


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"gates": 1}, "gates is 1; it must be at least 2 and at most 1024"),
        ({"gates": 4, "gate_rate": 0}, "gate-rate is 0; it must be above 0 and at most 1"),
        ({"gates": 4, "gate_rate": 1.5}, "gate-rate is 1.5; it must be above 0 and at most 1"),
        ({"gates": 4, "gate_by": "pixels"}, "gate-by is 'pixels'; choose one of latents, labels, random"),
        ({"gates": 4, "gate_neuron": "real"}, "gate-neuron is 'real'; choose one of dbn, sbn"),
        ({"gates": 4, "gate_estimator": "newton"}, "gate-estimator is 'newton'; choose one of sigmoid-adjusted"),
        ({"gates": 4, "gate_penalty": -1}, "gate-penalty is -1; it must be at least 0"),
        ({"gates": 4, "network": "mine:build"}, "network is 'mine:build'"),
        ({"gate_rate": 0.5}, "gate-rate has no meaning without --gates; add it, or leave it out"),
        ({"gate_by": "labels"}, "gate-by has no meaning without --gates"),
        ({"hidden_estimator": "rebar"}, "hidden-estimator has no meaning without --hidden-neuron"),
        ({"gates": 4, "hidden_neuron": "sbn"}, "gates and hidden-neuron do not go together; choose one of"),
        ({"gates": 4, "gate_by": "labels"}, "gate-by is labels, but conditional is off; add --conditional"),
        (
            {"gates": 4, "gate_estimator": "reinmax"},
            "the estimator reinmax averages the slopes at 0 and at 1 over a neuron's draws, and deterministic "
            "neurons (dbn) show one of the two; choose --gate-neuron sbn, or --gate-estimator sigmoid-adjusted",
        ),
        (
            {"hidden_neuron": "dbn", "hidden_estimator": "disarm"},
            "choose --hidden-neuron sbn, or --hidden-estimator sigmoid-adjusted",
        ),
        (
            {"gates": 4, "gate_neuron": "sbn", "gate_estimator": "muprop", "discriminator_norm": "batch"},
            "choose --discriminator-norm none",
        ),
        (
            {"gates": 4, "gate_neuron": "sbn", "gate_estimator": "bgan"},
            "weights images by the density ratio in the logit of one discriminator",
        ),
        ({"width": 0}, "width is 0; it must be above 0 and at most 64"),
    ],
)
def test_wrong_settings_are_one_line_with_the_remedy(settings, says):
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.resolve(**settings)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_follows_from_gates_and_from_hidden_neurons():
    plain = TrainingConfig.resolve()
    assert {value for name, value in plain.settings().items() if name.startswith(("gate", "hidden"))} == {None}
    assert plain.networks.width == 1
    gated = TrainingConfig.resolve(gates=4)
    assert (gated.inner.gate_rate, gated.inner.gate_by, gated.inner.gate_neuron) == (0.5, "latents", "dbn")
    assert (gated.inner.gate_estimator, gated.inner.gate_variance) == ("sigmoid-adjusted", 0)
    drawn = TrainingConfig.resolve(gates=4, gate_neuron="sbn", network="cnn")
    assert (drawn.inner.gate_estimator, drawn.inner.gate_variance, drawn.networks.width) == ("reinmax", 1, 4)
    assert TrainingConfig.resolve(hidden_neuron="sbn").inner.hidden_estimator == "reinmax"
    assert TrainingConfig.from_dict(drawn.to_dict()) == drawn


def test_the_sizes_of_networks_tell_their_inner_neurons_and_refiner():
    text = sizes_text(TrainingConfig.resolve(gates=8, gate_rate=0.25), (1, 8, 8), 0)
    assert text.startswith("images 1x8x8: generator mlp, gates 8 at 0.25, ")
    assert "generator mlp, hidden neurons sbn, " in sizes_text(
        TrainingConfig.resolve(hidden_neuron="sbn"), (1, 8, 8), 0
    )
    refined = sizes_text(TrainingConfig.resolve(refine="base", neuron="dbn"), (1, 8, 8), 0)
    assert "generator mlp, a refiner of base with " in refined
