import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from bgan.trainer.common.errors import ConfigError
from bgan.trainer.common.grids import side_by_side, tiled
from bgan.trainer.reports.reproduction.claims import CLAIMS, verdicts
from bgan.trainer.reports.reproduction.experiments import (
    EXPERIMENTS,
    ExperimentModel,
    ExperimentPlan,
    check_experiments,
    run_name,
)
from bgan.trainer.reports.reproduction.report import rewrite_pages
from bgan.trainer.reports.reproduction.results import Outcome, Results, spread
from tests.conftest import ROOT


def _outcome(model, *, seed=0, binarization=None, epochs=5, **metrics):
    return Outcome(
        run="r",
        preset="paper",
        model=model,
        epochs=epochs,
        seed=seed,
        binarization=binarization,
        metrics=metrics,
        steps=1,
        seconds=1.0,
    )


def _results(experiment, *outcomes):
    plan = ExperimentPlan(presets=("paper",), epochs=5, seeds=1, overrides={})
    return Results(
        made="today",
        dataset="d",
        count=9,
        classifier_accuracy=None,
        plans={experiment: plan},
        floor={},
        published_samples=None,
        outcomes=outcomes,
    )


def test_the_experiments_hold_what_the_paper_shows():
    assert [len(experiment.models) for experiment in EXPERIMENTS.values()] == [2, 3, 12, 4]
    assert len({model for experiment in EXPERIMENTS.values() for model in experiment.models}) == 15
    assert ExperimentModel(neuron="real").binarizations == ("threshold", "bernoulli")


def test_settings_of_a_model_by_preset():
    model = ExperimentModel(neuron="sbn", objective="wgan", normalized=True)
    options = {"epochs": 5, "seed": 2, "dataset": "digits", "data_dir": None}
    published = model.config(preset="published", **options)
    assert published.networks.discriminator_norm == "affine"
    assert published.optimization.optimizer == "rmsprop"
    assert published.objective.discriminator_bursts
    assert run_name(published) == "published-digits-mlp-sbn-wgan-affine-seed2-5ep"
    assert model.config(preset="paper", **options).networks.discriminator_norm == "batch"


def test_names_of_experiments():
    assert check_experiments([]) == ["I", "II", "III", "IV"]
    assert check_experiments(["iv", "I"]) == ["I", "IV"]
    with pytest.raises(ConfigError, match="choose from I, II, III, IV"):
        check_experiments(["V"])


@pytest.mark.parametrize(
    ("dbn", "sbn", "verdict"),
    [
        ((10.0, 10.1), (12.2, 12.3), "holds"),
        ((12.8, 12.9), (10.0, 10.1), "does not hold"),
        ((10.0, 11.0), (12.0, 13.5), "not decided"),
        ((10.0,), (12.2,), "not decided"),
        ((10.0, 10.1), (), "not run"),
    ],
)
def test_a_verdict_follows_from_its_rule_beyond_the_errors(dbn, sbn, verdict):
    outcomes = [
        _outcome(ExperimentModel(neuron=neuron), seed=seed, frechet_distance=value)
        for neuron, values in (("dbn", dbn), ("sbn", sbn))
        for seed, value in enumerate(values)
    ]
    found = verdicts(_results("I", *outcomes))[0]
    assert found.claim == "DBNs and SBNs give samples of similar quality"
    assert found.verdict == verdict


def test_a_claim_of_which_one_part_holds_is_mixed():
    outcomes = [
        _outcome(
            ExperimentModel(neuron=neuron, objective=objective),
            seed=seed,
            recall=recall + seed / 1000,
            class_entropy=3.3,
            frechet_distance=1.0,
        )
        for neuron, objective, recall in (
            ("dbn", "gan", 0.1), ("sbn", "gan", 0.5), ("dbn", "wgan-gp", 0.6), ("sbn", "wgan-gp", 0.6),
            ("dbn", "wgan", 0.6), ("sbn", "wgan", 0.6),
        )
        for seed in range(2)
    ]  # fmt: skip
    found = {verdict.claim: verdict for verdict in verdicts(_results("III", *outcomes))}
    assert found["GAN suffers from mode collapse"].verdict == "mixed"
    assert (
        "DBN, recall: GAN 0.101 ± 0.001, WGAN-GP 0.601 ± 0.001" in found["GAN suffers from mode collapse"].evidence
    )
    assert found["WGAN and WGAN-GP give digits of similar quality"].verdict == "holds"
    assert found["The discriminator is better without batch normalization"].verdict == "not run"


def test_every_claim_belongs_to_an_experiment_and_states_its_rule():
    assert {claim.experiment for claim in CLAIMS} == set(EXPERIMENTS)
    assert all(claim.rule for claim in CLAIMS)


def test_means_and_spreads_over_seeds():
    model = ExperimentModel(neuron="dbn")
    outcomes = [_outcome(model, seed=seed, frechet_distance=value) for seed, value in enumerate((10, 11, 12))]
    results = _results("I", *outcomes, _outcome(model, epochs=20, frechet_distance=99.0))
    mean = results.mean("I", "paper", model, "frechet_distance")
    assert mean == (11, pytest.approx(3**-0.5))
    assert spread(outcomes, "frechet_distance") == "11.000 ± 1.000"
    assert spread(outcomes[:1], "frechet_distance") == "10.000"
    once = replace(outcomes[0], errors={"frechet_distance": 0.25})
    assert spread([once], "frechet_distance") == "10.000 ± 0.250"  # of the draw of the samples
    assert _results("I", once).mean("I", "paper", model, "frechet_distance").error is None
    assert spread([], "frechet_distance") == spread(outcomes, "coverage") == "-"


def test_pages_are_written_again_from_the_numbers(tmp_path):
    source = ROOT / "docs" / "reproduction"
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    for name in ("report.md", "report.html"):
        (tmp_path / name).unlink()
    text = rewrite_pages(tmp_path).read_text()
    assert text == (source / "report.md").read_text()
    assert text.count("`published` MLP, SBN, WGAN-GP | 49.700 ± 2.508 |") == 1  # Experiment II does not repeat I
    page = (tmp_path / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == len(list((source / "figures").iterdir()))
    content = json.loads((source / "report.json").read_text())
    claims = content.pop("verdicts")
    results = Results.from_dict(content)
    assert json.loads(json.dumps(results.to_dict())) == content
    assert [verdict._asdict() for verdict in verdicts(results)] == claims


def test_tiles():
    pictures = np.arange(3.0).reshape(3, 1, 1) * np.ones((2, 2))
    picture = tiled(pictures, columns=2, gap=1, background=np.nan)
    assert picture.shape == (2 * 3 + 1, 2 * 3 + 1)
    assert (picture[1, 1], picture[1, 4], picture[4, 1]) == (0, 1, 2)
    assert np.isnan(picture[0]).all()
    assert np.isnan(picture[4:6, 4:6]).all()
    two_channels = side_by_side(np.stack([np.zeros((2, 2)), np.ones((2, 2))])[None])
    assert two_channels[0, 0].tolist() == [0, 0, 1, 1]
