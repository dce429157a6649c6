"""The sweep of docs/examples: worse runs are given up by a callback, the others are trained to the end."""

import json
import runpy

import pytest

from bgan.trainer import Run
from tests.conftest import ROOT
from tests.kit.models import read_metrics
from tests.kit.training import SETTINGS, newest_digest, noise_images, train_on_noise

optuna = pytest.importorskip("optuna", reason="not installed: pip install optuna")


@pytest.fixture(scope="module")
def sweep():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return runpy.run_path(str(ROOT / "docs" / "examples" / "sweep.py"))["sweep"]


def _states(study):
    return [trial.state.name for trial in study.trials]


def _sweep(sweep, folder, pruner):
    own = {**SETTINGS, "preset": "paper", "epochs": 2, "metric": "draw_distance"}
    return sweep(folder, trials=2, images=noise_images(), pruner=pruner, **own)


@pytest.mark.usefixtures("training")  # for seconds
def test_a_run_that_is_worse_is_given_up_after_its_first_evaluation_and_can_be_resumed(sweep, tmp_path):
    study = _sweep(sweep, tmp_path, optuna.pruners.ThresholdPruner(upper=0))
    assert _states(study) == ["PRUNED", "PRUNED"]
    for trial in study.trials:
        run = Run(tmp_path / f"trial-{trial.number:03d}")
        assert newest_digest(run)[0] == json.loads(run.report_file.read_text())["steps"] == 3
        assert list(trial.intermediate_values) == [3]


@pytest.mark.usefixtures("training")  # for seconds
def test_the_others_are_trained_to_the_end_and_measured(sweep, tmp_path):
    study = _sweep(sweep, tmp_path, optuna.pruners.NopPruner())
    assert _states(study) == ["COMPLETE", "COMPLETE"]
    for trial in study.trials:
        run = Run(tmp_path / f"trial-{trial.number:03d}")
        assert trial.value == read_metrics(run.folder)[-1]["evaluation"]["draw_distance"]
        assert run.config().optimization.learning_rate == trial.params["learning_rate"]
        again = train_on_noise(tmp_path / f"again-{trial.number}", **trial.params)
        assert newest_digest(again) == newest_digest(run)
