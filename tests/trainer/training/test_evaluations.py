"""Evaluations while a run is trained: their figures are those of `bgan evaluate`, and they change nothing else."""

import pytest

from bgan.trainer import Callback, CallbackError, evaluate
from bgan.trainer.common.errors import ConfigError
from tests.kit.models import read_metrics
from tests.kit.training import newest_digest, noise_images, train_on_noise


class Figures(Callback):
    def __init__(self):
        self.told = {}

    def on_evaluation(self, step, figures):
        assert step not in self.told
        self.told[step] = dict(figures)


class Failing(Figures):
    def on_evaluation(self, step, figures):
        raise ValueError("no room")


def _evaluations(run):
    return {record["step"]: record["evaluation"] for record in read_metrics(run.folder) if "evaluation" in record}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run of three epochs, measured after the second; and what its callback was told."""
    callback = Figures()
    run = train_on_noise(tmp_path_factory.mktemp("measured") / "run", callback, epochs=3, evaluate_every=2)
    return run, callback.told


def test_figures_are_those_of_evaluate_in_the_log_and_for_callbacks(measured, tmp_path):
    run, told = measured
    assert list(told) == [6]
    assert _evaluations(run) == told
    assert [(record["step"], record["epoch"]) for record in read_metrics(run.folder)] == [
        (3, 1),
        (6, 2),
        (6, 2),
        (9, 3),
    ]
    plain = train_on_noise(tmp_path / "run")
    expected = evaluate(plain, noise_images()).metrics
    assert told[6] == expected
    assert "unique_share" in expected


def test_neither_weights_nor_a_resumed_run_depend_on_them(measured, tmp_path):
    run, told = measured
    plain = train_on_noise(tmp_path / "plain", epochs=3)
    assert newest_digest(plain) == newest_digest(run)
    resumed = train_on_noise(tmp_path / "resumed", epochs=1)
    resumed = train_on_noise(resumed.folder, epochs=3, evaluate_every=2)  # settings that a resumed run may change
    assert newest_digest(resumed) == newest_digest(run)
    assert _evaluations(resumed) == told


@pytest.mark.usefixtures("training")  # for seconds
def test_one_that_is_missing_is_made_when_the_run_is_resumed_and_no_other_twice(tmp_path):
    with pytest.raises(
        CallbackError, match=r"Failing.on_evaluation raised ValueError: no room; stopped and saved"
    ):
        train_on_noise(tmp_path / "run", Failing(), evaluate_every=1)
    callback = Figures()
    run = train_on_noise(tmp_path / "run", callback, evaluate_every=1)
    assert list(callback.told) == [6]  # that of step 3 was in the log before the callback heard of it
    lines = run.metrics_file.read_bytes().splitlines(keepends=True)
    run.metrics_file.write_bytes(b"".join(line for line in lines if b"evaluation" not in line))
    again = Figures()
    train_on_noise(tmp_path / "run", again, evaluate_every=1)
    assert again.told == {6: callback.told[6]}
    last = Figures()
    train_on_noise(tmp_path / "run", last, evaluate_every=1)
    assert last.told == {}


def test_a_number_of_epochs_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"evaluate-every is 0; it must be at least 1"):
        train_on_noise(tmp_path / "run", evaluate_every=0)
