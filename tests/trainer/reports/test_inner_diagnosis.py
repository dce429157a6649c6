"""`bgan diagnose-gradients` of gates and hidden neurons: exact where they are few."""

import itertools

import pytest
import torch

from bgan.trainer.common.errors import ConfigError
from bgan.trainer.reports.diagnosis.diagnose import DiagnosisOptions, diagnose
from bgan.trainer.reports.diagnosis.figure import diagnosis_figure
from bgan.trainer.reports.diagnosis.flips import enumerated_gradients, flip_gradients, true_gradients
from bgan.trainer.reports.diagnosis.subject import load_subject
from tests.kit.cli import bgan
from tests.kit.models import make_run

SHAPE = (1, 3, 3)
SETTINGS = {"shape": SHAPE, "network": "mlp", "steps": 25, "learning_rate": 5e-3, "width": 0.05, "latent_size": 6}
UNBIASED = ("reinforce-loo", "disarm", "rebar")


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "gated"
    return make_run(folder, gates=3, gate_neuron="sbn", gate_estimator="rebar", neuron="sbn", **SETTINGS)


@pytest.fixture(scope="module")
def hidden(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "hidden"
    return make_run(folder, **SETTINGS | {"hidden_neuron": "sbn", "width": 6 / 1024})


def _subject(run, of, images=3, config=None):
    return load_subject(run, config or run.config(), of, images=images, seed=0, report=print, warn=print)


def _silent(text):
    pass


def test_the_truth_of_gates_is_that_of_all_patterns(gated):
    subject = _subject(gated, "gates")
    assert subject.logits.shape == (3, 3, 1, 1)
    logits = subject.logits.flatten(1).double().requires_grad_()
    p = torch.sigmoid(subject.slope * logits)
    expected = 0
    for pattern in itertools.product((0.0, 1.0), repeat=3):
        state = torch.tensor(pattern)
        losses = subject.losses(state.expand(3, 3)[:, :, None, None]).detach().double()
        expected = expected + (losses * torch.where(state == 1, p, 1 - p).prod(dim=1)).sum()
    (expected,) = torch.autograd.grad(expected, logits)
    assert expected.norm() > 1e-4
    torch.testing.assert_close(true_gradients(subject, 1, _silent), expected[None], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("of", ["gates", "hidden"])
def test_flips_of_drawn_patterns_agree_with_enumeration(gated, hidden, of):
    subject = _subject({"gates": gated, "hidden": hidden}[of], of)
    exact, groups = enumerated_gradients(subject)[0], flip_gradients(subject, 300, _silent)
    error = groups.std(dim=0) / len(groups) ** 0.5
    assert ((groups.mean(dim=0) - exact).abs() < 6 * error + 1e-7).all()
    assert error.norm() < exact.norm()


@pytest.mark.usefixtures("training")  # for seconds
def test_unbiased_estimators_of_gates_show_no_bias(gated, tmp_path):
    plan = DiagnosisOptions(images=2, draws=120)
    diagnosis = diagnose(gated, plan, estimators=[*UNBIASED, "reinmax"])
    assert (diagnosis.of, diagnosis.neurons) == ("gates", "sbn gates")
    assert diagnosis.reference == (
        "the true gradient of the expected loss, by enumeration of all 8 patterns of gates; the noise of the "
        "output neurons is held"
    )
    truth = enumerated_gradients(_subject(gated, "gates", images=2))
    assert diagnosis.gradient_norm == pytest.approx((truth.square().sum() / 2).sqrt().item())
    found = {item.estimator: item for item in diagnosis.estimators}
    for name in UNBIASED:
        accuracy = found[name].accuracy
        assert accuracy.squared_bias < 3.5 * accuracy.squared_bias_error, name
    assert [found[name].evaluations for name in UNBIASED] == [8, 2, 3]
    diagnosis_figure(tmp_path / "picture.png", diagnosis)


def test_deterministic_gates_are_compared_with_their_flips(tmp_path):
    run = make_run(tmp_path / "run", **SETTINGS, gates=3)
    diagnosis = diagnose(run, DiagnosisOptions(images=8, draws=20))
    assert diagnosis.reference == (
        "the difference that each gate's flip makes, times slope p (1 - p): there is no true gradient"
    )
    assert [item.estimator for item in diagnosis.estimators] == ["sigmoid-adjusted", "identity"]
    assert diagnosis.refused["reinmax"].endswith("choose --gate-neuron sbn, or --gate-estimator sigmoid-adjusted")
    subject = _subject(run, "gates", images=8)
    p, bits = torch.sigmoid(subject.slope * subject.logits), (subject.logits > 0).float()
    on, off = bits.clone(), bits.clone()
    on[:, 1], off[:, 1] = 1, 0
    expected = subject.slope * (p * (1 - p))[:, 1, 0, 0] * (subject.losses(on) - subject.losses(off))
    torch.testing.assert_close(true_gradients(subject, 1, _silent)[0, :, 1], expected.detach().double())


def test_many_hidden_neurons_are_sampled(tmp_path):
    run = make_run(tmp_path / "run", **SETTINGS | {"hidden_neuron": "dbn", "width": 0.3, "steps": 2})
    diagnosis = diagnose(run, DiagnosisOptions(images=2, draws=20))
    assert diagnosis.reference.endswith("there is no true gradient; of 256 of 307 hidden neurons")
    assert diagnosis.neurons == "dbn hidden"


@pytest.mark.parametrize("of", ["gates", "hidden"])
def test_the_output_neurons_of_such_runs_are_measured_too(gated, hidden, of):
    run = {"gates": gated, "hidden": hidden}[of]
    diagnosis = diagnose(run, DiagnosisOptions(images=2, draws=20, backgrounds=10), of="output", neuron="sbn")
    assert diagnosis.reference.endswith("by flips of all pixels")
    assert diagnosis.gradient_norm > 0


@pytest.mark.parametrize(
    ("of", "settings", "options", "says"),
    [
        ("gates", {}, {}, "the run has no gates (--gates); leave out --of gates"),
        (
            "hidden",
            {"gates": 2},
            {},
            "the run has no binary hidden layer (--hidden-neuron); leave out --of hidden",
        ),
        ("inner", {}, {}, "of is 'inner'; choose one of output, gates, hidden"),
        ("gates", {"gates": 2}, {"estimators": ["disarm"]}, "the estimator disarm needs neurons that are drawn"),
        ("gates", {"gates": 2}, {"neuron": "real"}, "gate-neuron is 'real'; choose one of dbn, sbn"),
    ],
)
def test_what_cannot_be_measured_is_one_line(tmp_path, of, settings, options, says):
    run = make_run(tmp_path / "run", **SETTINGS | settings | {"steps": 1})
    with pytest.raises(ConfigError) as caught:
        diagnose(run, DiagnosisOptions(images=2, draws=20, backgrounds=10), of=of, **options)
    assert says in str(caught.value)


def test_the_command_measures_the_gates(gated):
    options = ("--images", 2, "--draws", 20, "--estimator", "disarm", "--runs-dir", gated.folder.parent)
    result = bgan("diagnose-gradients", "gated", *options)
    assert result.returncode == 0, result.stderr
    assert "sbn gates" in result.stdout
    assert "all 8 patterns of gates" in " ".join(result.stdout.split())
    result = bgan("diagnose-gradients", "gated", *options, "--of", "hidden")
    assert result.returncode == 2
    assert result.stderr.startswith("bgan: the run has no binary hidden layer")
