"""`bgan explore` on a run and its model: through the command line, and by its function where that is enough."""

import copy
import json
import re

import onnx
import pytest
from PIL import Image

from bgan.trainer.cli.explore import explore
from bgan.trainer.common.errors import UserError
from bgan.trainer.export.exporter import export_run
from tests.kit.cli import bgan, bgan_process
from tests.kit.models import make_run

PICTURES = ("interpolation", "nearest", "neurons", "preactivations")
FEW = {"images": 3, "steps": 4, "draws": 2}
FEW_OPTIONS = [part for name, value in FEW.items() for part in (f"--{name}", value)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, exporting):
    """A run in runs/, its model in models/, and files that are neither."""
    folder = tmp_path_factory.mktemp("explore")
    export_run(make_run(folder / "runs" / "one", neuron="sbn"), folder / "models")
    for name in ("text", "text.onnx"):
        (folder / name).write_text("x")
    return folder


@pytest.fixture(scope="module")
def explored(folder):
    """What the command says, and the files that it makes."""
    result = bgan_process("explore", *FEW_OPTIONS, cwd=folder)
    assert result.returncode == 0, result.stderr
    return result, _files(folder / "runs" / "one" / "exploration")


def _files(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_the_newest_run_is_explored_into_its_folder(folder, explored):
    result, files = explored
    assert result.stdout.splitlines()[0] == "runs/one/exploration/exploration.html"
    assert "searching 1540 training images" in result.stderr
    assert set(files) == {"exploration.html", *(f"{name}.png" for name in PICTURES)}
    for name in PICTURES:
        with Image.open(folder / "runs" / "one" / "exploration" / f"{name}.png") as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 500
    page = files["exploration.html"].decode()
    assert page.count("data:image/png;base64,") == 4
    assert "bgan explore --images 3 --steps 4 --draws 2 --seed 0" in page
    assert "trained with stochastic neurons (SBN)" in page


def test_the_same_seed_gives_the_same_bytes(folder, explored, monkeypatch):
    _, files = explored
    monkeypatch.chdir(folder)
    explore("one", **FEW, output=folder / "again")
    assert _files(folder / "again") == files
    explore("one", **FEW, output=folder / "other", seed=1, nearest=False)
    others = _files(folder / "other")
    assert set(others) == set(files) - {"nearest.png"}
    assert all(content != files[name] for name, content in others.items())
    assert b"Nearest training images" not in others["exploration.html"]


def test_a_model_looks_as_its_run_does(folder, explored, monkeypatch):
    _, files = explored
    monkeypatch.chdir(folder)
    explore("models/one.onnx", **FEW)
    of_model = _files(folder / "exploration" / "one")
    assert set(of_model) == set(files)
    # Numbers and pixels apart, where onnxruntime and torch may differ in a last bit.
    pages = [
        re.sub(r'base64,[^"]+|[\d.]+', "", content["exploration.html"].decode()) for content in (files, of_model)
    ]
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("none", {}, "there is no run 'none' in runs; the runs there: one"),
        ("gone.onnx", {}, "there is no file gone.onnx; `bgan export` writes models"),
        ("text.onnx", {}, "text.onnx is not a model that `bgan export` wrote"),
        ("text", {}, "text is neither the folder of a run nor a model (.onnx)"),
        (
            "one",
            {"dataset": "fonts"},
            "dataset is 'fonts'; name one of auto, mnist, digits, ",
        ),
        (
            "one",
            {"dataset": "mnist", "data_dir": "none"},
            "or BGAN_DATA_DIR, or leave the nearest training images",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(folder, monkeypatch, source, options, says):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError) as caught:
        explore(source, **options, output=folder / "bad")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folder / "bad").exists()


def test_an_output_that_is_no_folder_is_refused_at_once(folder):
    result = bgan("explore", "one", "--output", "text/a", cwd=folder)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "bgan: output is text/a, but text is a file; name a folder\n"


def test_images_of_another_shape_need_no_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs" / "small", shape=(2, 5, 4))
    with pytest.raises(UserError, match="small makes images of 2x5x4, but those of digits are 1x28x28"):
        explore()
    explore(nearest=False, **FEW)
    assert (tmp_path / "runs" / "small" / "exploration" / "exploration.html").is_file()


@pytest.mark.usefixtures("exporting")
def test_a_thresholded_generator_that_was_trained_as_a_stochastic_one(tmp_path):
    run = make_run(tmp_path / "runs" / "one", neuron="dbn", training_neuron="sbn", estimator="reinmax")
    model = export_run(run, tmp_path / "models").path
    for source in (run.folder, model):
        explore(str(source), **FEW, nearest=False, output=tmp_path / "out")
        page = (tmp_path / "out" / "exploration.html").read_text()
        assert "trained with stochastic neurons (SBN); its image, below, is the thresholded one" in page
        assert "neurons dbn" in page


def test_help_teaches():
    text = bgan("explore", "--help").stdout
    for part in ("RUN|MODEL", "--no-nearest", "--seed", "--output", "BGAN_RUNS_DIR", "same latents", "Examples:"):
        assert part in text


def test_a_model_that_is_not_as_its_manifest_says_is_refused(folder, tmp_path):
    model = onnx.load(folder / "models" / "one.onnx")
    for field, value, says in (
        ("latentSize", 5, "does not run as its manifest says"),
        ("neuron", "NEURON_UNSPECIFIED", "does not say which neurons it has"),
    ):
        manifest = json.loads(model.metadata_props[0].value) | {field: value}
        changed = copy.deepcopy(model)
        changed.metadata_props[0].value = json.dumps(manifest)
        onnx.save(changed, tmp_path / "changed.onnx")
        with pytest.raises(UserError, match=says):
            explore(str(tmp_path / "changed.onnx"), nearest=False, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
