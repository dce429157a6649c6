"""Images of one's own through the command line: shown, trained on, measured against, and what can go wrong."""

import io
import json
import os
import re
import zipfile
from functools import partial

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.kit.cli import bgan, bgan_process, error_line
from tests.kit.limits import files_of_at_most
from tests.kit.models import read_metrics

QUICK = ("--preset", "paper", "--network", "mlp", "--batch-size", 16, "--epochs")
SHAPE = (3, 8, 12)


@pytest.fixture
def command(tmp_path):
    return partial(bgan, env={"BGAN_CACHE_DIR": str(tmp_path / "cache")})


@pytest.fixture
def path(tmp_path):
    """300 images of three channels, with labels."""
    write(tmp_path / "bars.npz")
    return tmp_path / "bars.npz"


def write(path, seed=0):
    random = np.random.default_rng(seed)
    images = np.zeros((300, *SHAPE), bool)
    labels = np.arange(300) % 2
    for image, label in zip(images, labels, strict=True):
        if label:
            image[random.integers(3), random.integers(8)] = True
        else:
            image[random.integers(3), :, random.integers(12)] = True
    np.savez(path, images=images ^ (random.random(images.shape) < 0.02), labels=labels)


def test_data_are_shown_before_they_are_trained_on(path, tmp_path, command):
    files = ("--picture", tmp_path / "a.png", "--json", tmp_path / "a.json")
    result = command("data", path, *files)
    assert result.returncode == 0, result.stderr
    for text in ("300", "3x8x12", "0 150, 1 150"):
        assert text in result.stdout
    assert "warning: 300 images are few to learn from" in result.stderr
    figures = json.loads((tmp_path / "a.json").read_text())
    with np.load(path) as file:
        images = file["images"]
    assert figures["on_fraction"] == pytest.approx(images.mean())
    assert figures["duplicates"] == 300 - len(np.unique(images, axis=0))
    assert (figures["count"], figures["image_shape"], figures["classes"]) == (
        300,
        [3, 8, 12],
        {"0": 150, "1": 150},
    )
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture)
    np.testing.assert_array_equal(pixels[2:10, 2:38], 255 * images[0].transpose(1, 0, 2).reshape(8, 36))
    again = command("data", path, "--json", "-")
    assert json.loads(again.stdout) == figures


def test_what_is_odd_is_said(tmp_path, command):
    images = np.random.default_rng(0).random((2000, 20, 20)) < 0.8
    images[:, :8] = False
    images[:, 12:] = False
    images[1000:] = images[:1000]
    labels = np.minimum(np.arange(2000), 1)
    np.savez(tmp_path / "a.npz", images=np.where(images, 100, 0).astype(np.uint8), labels=labels)
    result = command("data", tmp_path / "a.npz", "--invert")
    assert result.returncode == 0, result.stderr
    for text in (
        "of the values are neither 0 nor 1 nor the greatest of their type, and count as on",
        "more pixels are on than off",
        "50.0% of the images are copies of others",
        "80% of the pixels are the same in all images",
        "rare: 0, with less than a tenth of an even share",
    ):
        assert text in result.stderr


@pytest.mark.usefixtures("training")
def test_training_goes_on_as_if_there_had_been_no_break_and_refuses_other_images(path, tmp_path, command):
    def train(name, epochs, *options):
        options = ("--data", path, *QUICK, epochs, "--name", name, "--runs-dir", tmp_path / "runs", *options)
        return command("train", *options)

    whole, first = train("whole", 2), train("parts", 1)
    assert whole.returncode == first.returncode == 0, whole.stderr + first.stderr
    config = json.loads((tmp_path / "runs" / "parts" / "config.json").read_text())
    assert (config["dataset"], config["data"]) == ("bars", str(path))
    assert len(config["data_digest"]) == 64
    second = train("parts", 2)
    assert second.returncode == 0, second.stderr
    for name in ("checkpoints/step_00000032.safetensors", "samples/step_00000032.png"):
        contents = [(tmp_path / "runs" / run / name).read_bytes() for run in ("whole", "parts")]
        assert contents[0] == contents[1]
    assert len(read_metrics(tmp_path / "runs" / "parts")) == 2

    line = error_line(train("parts", 3, "--invert"))
    assert "was trained on other images" in line
    write(path, seed=1)
    line = error_line(train("parts", 3))
    assert f"was trained on other images than {path} has now; choose another --name" in line
    line = error_line(command("evaluate", tmp_path / "runs" / "parts", "--count", 64))
    assert f"the images of {path} are not those that were trained on" in line


@pytest.mark.usefixtures("training")  # of the classifier
def test_a_run_is_measured_against_its_own_images_and_a_model_against_named_ones(path, tmp_path, command):
    runs = ("--runs-dir", tmp_path / "runs")
    assert command("train", "--data", path, *QUICK, 1, "--name", "bars", *runs).returncode == 0
    result = command("export", "bars", *runs, "--models", tmp_path / "models")
    assert result.returncode == 0, result.stderr
    model = tmp_path / "models" / "bars.onnx"
    figures = []
    for arguments in ((tmp_path / "runs" / "bars",), (model, "--data", path)):
        result = command("evaluate", *arguments, "--count", 64, "--json", "-")
        assert result.returncode == 0, result.stderr
        figures += json.loads(result.stdout)
    assert figures[0]["floor"] == figures[1]["floor"]
    assert figures[0]["compared"] == figures[1]["compared"] == 42
    assert len(figures[0]["class_histogram"]) == 2
    line = error_line(command("evaluate", model, "--count", 64), 2)
    assert "dataset is 'bars'; choose one of auto, mnist" in line
    assert "or name images of your own with --data" in line
    page = command("explore", "bars", *runs, "--images", 4)
    assert page.returncode == 0, page.stderr


def _zip(path, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def _png(seed=0):
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).random((8, 8)) < 0.3).save(content, "PNG")
    return content.getvalue()


def _unfit(folder):
    """Files that must not be trained on, and what is said of them."""
    _zip(folder / "bomb.zip", {"a.png": bytes(70 * 2**20)})
    yield folder / "bomb.zip", "unpacks to 70 MiB, more than 500 times its size"
    _zip(folder / "path.zip", {"a.png": _png(), "../../b.png": _png(1)})
    yield folder / "path.zip", "its entry '../../b.png' leads out of the archive"
    _zip(folder / "bad.zip", {"a.png": _png(), "b.png": b"", "c.png": _png(1)})
    yield folder / "bad.zip", "1 of them cannot be used: b.png (it is empty); leave them out with --skip-bad"
    np.savez(folder / "pickle.npz", images=np.array([{}, 1], dtype=object))
    yield folder / "pickle.npz", "holds pickled Python objects"
    np.save(folder / "one.npy", np.eye(8)[None])
    yield folder / "one.npy", "has only one image to learn from"
    np.save(folder / "blank.npy", np.zeros((50, 8, 8)))
    yield folder / "blank.npy", "every pixel is off as nonzero takes them"
    yield folder / "missing.npy", "there is no file or folder"


def test_what_cannot_be_trained_on_is_one_line(tmp_path, command):
    for path, says in _unfit(tmp_path):
        assert says in error_line(command("data", path))
    result = command("train", "--data", tmp_path / "bad.zip", "--runs-dir", tmp_path / "runs")
    assert "b.png (it is empty)" in error_line(result)
    assert not (tmp_path / "runs").exists()
    assert list((tmp_path / "cache" / "images").iterdir()) == []
    result = command("data", tmp_path / "bad.zip", "--skip-bad")
    assert result.returncode == 0, result.stderr
    assert "left out: 1 of them cannot be used: b.png (it is empty)" in result.stderr


def test_options_that_do_not_go_together_are_one_line(path, command):
    for arguments, says in (
        (("train", "--data", path, "--dataset", "mnist"), "give either --dataset, a data set by name, or --data"),
        (("data",), "name a file or folder of images, or a data set with --dataset"),
        (("data", path, "--size", "9x9"), "size and fit go together"),
        (("data", path, "--threshold", "3"), "threshold needs --binarize threshold"),
        (("data", "--dataset", "digits", "--axes", "NHW"), "axes goes with --data"),
        (("evaluate", "--invert"), "options of reading images go with --data or --dataset"),
    ):
        assert says in error_line(command(*arguments), 2)


def test_a_missing_extra_is_named(tmp_path):
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "h5py.py").write_text("raise ModuleNotFoundError('No module named h5py', name='h5py')")
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    environment = {"BGAN_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path / "without")}
    line = error_line(bgan_process("data", tmp_path / "a.h5", env=environment))
    assert "this command needs the package 'h5py': pip install 'bgan[data]'" in line


def test_a_disk_that_fills_is_one_line_and_with_room_it_goes_on(tmp_path):
    environment = {"BGAN_CACHE_DIR": str(tmp_path / "cache")}
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((4000, 28, 28)) < 0.3)
    with files_of_at_most(200_000):
        line = error_line(bgan("data", tmp_path / "a.npy", env=environment))
    assert "cannot write to" in line
    assert "images.bin: File too large; nothing was kept. Make room, or name another folder" in line
    assert list((tmp_path / "cache" / "images").iterdir()) == []
    assert bgan("data", tmp_path / "a.npy", env=environment).returncode == 0
    (folder,) = (tmp_path / "cache" / "images").iterdir()
    assert os.path.getsize(folder / "images.bin") == 4000 * 98


def test_what_was_taken_and_left_out_is_said_by_the_commands(tmp_path, command):
    bits = np.random.default_rng(0).random((70, 8, 8)) < 0.3
    np.savez(
        tmp_path / "keras.npz", images=bits[..., None], labels=np.array(["cat", "dog"])[np.arange(70) % 2], x=0
    )
    shown = command("data", tmp_path / "keras.npz")
    assert shown.returncode == 0, shown.stderr
    for text in (
        "1x8x8",
        "cat 35, dog 35",
        "warning: the array of shape 70x8x8x1 is taken as --axes NHWC",
        "warning: read as images: images; not used: x one number",
    ):
        assert text in (shown.stderr if text.startswith("warning") else shown.stdout)
    options = ("--data", tmp_path / "keras.npz", *QUICK, 1, "--batch-size", 8, "--runs-dir", tmp_path / "runs")
    trained = command("train", *options)
    assert trained.returncode == 0, trained.stderr
    assert "warning: the array of shape 70x8x8x1 is taken as --axes NHWC" in trained.stderr
    (tmp_path / "set").mkdir()
    for i, image in enumerate(bits):
        Image.fromarray(image).save(tmp_path / "set" / f"{i}.png")
    (tmp_path / "set" / "notes.txt").write_text("x")
    assert "left aside: 1 files named .txt" in command("data", tmp_path / "set").stderr
    line = error_line(command("data", tmp_path / "set", "--key", "x"), 2)
    assert f"key has no meaning for {tmp_path / 'set'}: it holds image files, not arrays" in line


def test_sets_by_name_take_the_same_options(tmp_path, command):
    result = command("data", "--dataset", "digits", "--size", "14x14", "--fit", "area", "--json", "-")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["image_shape"] == [1, 14, 14]
    options = ("--dataset", "digits", "--size", "8x8", "--fit", "max-pool", *QUICK, 1, "--dry-run")
    dry = command("train", *options)
    assert json.loads(dry.stdout)["image_options"]["fit"] == "max-pool"


def test_every_option_that_the_docs_name_exists(command):
    helps = "".join(command(name, "--help").stdout for name in ("data", "train", "evaluate"))
    text = (ROOT / "docs" / "data.md").read_text()
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text))
    assert {"--data", "--axes", "--skip-bad"} <= named
    assert [option for option in sorted(named) if option not in helps] == []
