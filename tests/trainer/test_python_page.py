"""docs/python.md and docs/examples: what stands there runs."""

import re
import runpy

import pytest

from bgan.trainer import ConfigError, gradient_estimator
from bgan.trainer.common import entry_points
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "python.md").read_text()


def test_the_snippets_run(training, exporting, tmp_path, monkeypatch, capsys, cache_environment):
    monkeypatch.chdir(tmp_path)
    for name, value in cache_environment.items():
        monkeypatch.setenv(name, value)
    found = {}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        exec(compile(snippet, "docs/python.md", "exec"), found)
    assert found["images"].shape == (64, 1, 28, 28)
    assert found["model"].name == "digits.onnx"
    assert found["figures"]["unique_share"] > 0.5
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["digits.onnx", "own.onnx"]
    assert capsys.readouterr().out == "3 step_00000003.safetensors\n6 step_00000006.safetensors\n"


def test_groups_of_entry_points_are_those_that_are_read():
    groups = {value for name, value in vars(entry_points).items() if name.isupper() and name != "GIVEN"}
    groups = {value for value in groups if isinstance(value, str) and value.startswith("bgan.")}
    assert set(re.findall(r'entry-points\."([\w.]+)"', PAGE)) == groups


@pytest.mark.parametrize(("estimator", "epochs", "most"), [(None, 5, 285), ("disarm", 2, 330)])
def test_the_vae_learns(training, estimator, epochs, most):
    """Of independent pixels, each with its mean over the images, the bound is 295 nats; of fair coins 543."""
    train = runpy.run_path(str(ROOT / "docs" / "examples" / "binary_vae.py"))["train"]
    bounds = train(epochs, estimator)
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] < most


def test_gated_classifiers_learn_and_run_fewer_parts_at_lower_rates(training, exporting, tmp_path):
    compare = runpy.run_path(str(ROOT / "docs" / "examples" / "gated_classifier.py"))["compare"]
    told = []
    figures = compare(tmp_path, epochs=3, width=64, progress=told.append)
    assert list(figures) == ["dense", "rate 1", "rate 0.5", "rate 0.25"]
    assert len(told) == len(list(tmp_path.glob("*.onnx"))) == 4
    assert all(row["accuracy"] > 0.6 and row["microseconds"] > 0 for row in figures.values())
    shares = [row["share"] for row in figures.values()]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("maligan", {}, "needs the density ratio of a GAN's discriminator"),
        ("reinmax", {"neuron": "dbn"}, "the estimator reinmax averages"),
        ("other", {}, "estimator is 'other'; choose one of"),
        ("disarm", {"samples": 3}, "estimator-samples has no meaning for disarm"),
    ],
)
def test_an_estimator_that_cannot_stand_alone_is_named(name, options, message):
    with pytest.raises(ConfigError, match=message):
        gradient_estimator(name, 4, **options)
