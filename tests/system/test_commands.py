"""Export, serve and sample through the command line, and what can go wrong with them."""

import os
import re
import tracemalloc

import numpy as np
import onnx
import pytest
from PIL import Image

from bgan.trainer.config.training import TrainingConfig
from bgan.trainer.training.run import open_run
from tests.fixtures.write import write_model
from tests.kit.cli import bgan, bgan_process, error_line
from tests.kit.limits import files_of_at_most
from tests.kit.models import make_run
from tests.kit.servers import free_port, server

COMMANDS = ("train", "export", "serve", "sample", "models", "token")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, of which `newer` is the newer one."""
    folder = tmp_path_factory.mktemp("runs")
    older = make_run(folder / "older", neuron="sbn", shape=(1, 4, 4))
    make_run(folder / "newer", shape=(1, 4, 4))
    for path in older.checkpoints.iterdir():
        os.utime(path, (1, 1))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, "digits", stochastic=True)
    return folder


@pytest.fixture(scope="module")
def running(models):
    with server(models) as process:
        yield process


@pytest.mark.usefixtures("exporting")
def test_the_newest_run_is_exported_unless_one_is_named(runs, tmp_path):
    for arguments, name in (((), "newer"), (("older",), "older"), ((runs / "older", "--name", "mine"), "mine")):
        result = bgan("export", *arguments, "--runs-dir", runs, "--models", tmp_path / "models")
        assert result.returncode == 0, result.stderr
        assert (tmp_path / "models" / f"{name}.onnx").is_file()
        assert "checked on 1024 rows" in result.stdout


def test_export_of_what_is_not_there(runs, tmp_path):
    result = bgan("export", "nope", "--runs-dir", runs)
    assert "there is no run 'nope'" in error_line(result)
    assert "newer, older" in result.stderr
    assert "train one with `bgan train`" in error_line(bgan("export", "--runs-dir", tmp_path))
    assert "choose one of threshold, bernoulli" in error_line(
        bgan("export", "--runs-dir", runs, "--binarization", "dither")
    )
    open_run(tmp_path / "new", TrainingConfig.resolve(dataset="digits"))
    line = error_line(bgan("export", "new", "--runs-dir", tmp_path, "--models", tmp_path / "models"))
    assert f"{tmp_path / 'new'} has no checkpoint yet; train it first with the command that made it" in line
    assert not (tmp_path / "models").exists()


def test_samples_as_files(running, tmp_path):
    def sample(name, *options):
        result = bgan("sample", "--server", running.target, "--output", tmp_path / name, *options)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert "seed 1" in sample("a.npy", "--count", 50, "--seed", 1)
    images = np.load(tmp_path / "a.npy")
    assert (images.shape, images.dtype) == ((50, 1, 28, 28), np.uint8)
    assert set(np.unique(images)) == {0, 1}
    sample("b.npz", "--count", 50, "--seed", 1, "--batch-size", 7)
    with np.load(tmp_path / "b.npz") as file:
        unpacked = np.unpackbits(file["packed_images"], axis=1, count=784).reshape(50, *file["image_shape"])
    np.testing.assert_array_equal(unpacked, images)
    sample("c.npy", "--count", 20, "--seed", 1, "--first-index", 30)
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), images[30:])
    drawn = sample("d.npy", "--count", 5).split("seed ")[1].split(",")[0]
    sample("e.npy", "--count", 5, "--seed", drawn)
    assert (tmp_path / "d.npy").read_bytes() == (tmp_path / "e.npy").read_bytes()
    sample("f.png", "--count", 9, "--seed", 1)
    with Image.open(tmp_path / "f.png") as picture:
        assert picture.size == (3 * 30 + 2, 3 * 30 + 2)
        np.testing.assert_array_equal(np.asarray(picture)[2:30, 2:30], 255 * images[0, 0])


def test_several_servers_share_a_file(running, models, tmp_path):
    away = f"localhost:{free_port()}"
    with server(models) as second:
        for name, options in {
            "one.npz": ["--server", running.target],
            "several.npz": ["--servers", f"{running.target}, {second.target},{away}"],
        }.items():
            result = bgan_process("sample", "--count", 30_000, "--seed", 3, *options, "--output", tmp_path / name)
            assert result.returncode == 0, result.stderr
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "several.npz").read_bytes()
    lines = result.stderr.splitlines()
    assert re.fullmatch(rf"{away}: UNAVAILABLE; trying again from image \d+ in \S+ s \(try 2\)", lines[0])


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_memory_does_not_grow_with_the_count(running, tmp_path, name):
    peaks = []
    for count in (30_000, 150_000):
        tracemalloc.start()  # counts arrays to the byte, whatever else the process holds
        result = bgan("sample", "--server", running.target, "--count", count, "-o", tmp_path / name)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert result.returncode == 0, result.stderr
    assert peaks[1] < 2 * peaks[0], "of five times the images"


def test_models_are_listed(running):
    result = bgan_process("models", "--server", running.target)
    assert result.returncode == 0
    assert "digits" in result.stdout
    assert "stochastic" in result.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--model", "nope"], "there is no model 'nope'; there are digits"),
        (["--count", "0"], "image_count"),
        (["--count", "-1"], "image_count"),
        (["--first-index", str(2**63 - 1)], "first_index"),
        (["--seed", str(2**64)], "out of range"),
        (["--server", "localhost:1", "--timeout", "0.5"], "localhost:1: "),
    ],
)
def test_samples_that_cannot_be_had(running, tmp_path, options, says):
    result = bgan("sample", "--server", running.target, "--output", tmp_path / "x.npy", *options)
    assert says in error_line(result)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.png"])
def test_samples_that_end_early_leave_the_file_that_was_there(running, tmp_path, name):
    (tmp_path / name).write_text("precious")
    options = ("--server", running.target, "--output", tmp_path / name, "--count", 100, "--seed", 1)
    with files_of_at_most(2_000):
        error_line(bgan("sample", *options))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "precious")]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-o", "x.gif"], "must end in one of"),
        (["-o", "missing/x.png"], "the folder missing does not exist"),
        (["-o", "folder.npz"], "is a folder; name a file"),
        (["-o", "pipe.npz"], "is no regular file"),
        (["-o", "x.npz", "--timeout", "nan"], "nan is no time"),
        (["-o", "x.npz", "--timeout", "0"], "0.0 is no time"),
        (["-o", "x.npz", "--servers", "a:1,,b:1"], "has an empty address"),
        (["-o", "x.npz", "--servers", "a:1", "--server", "b:1"], "either --server or --servers"),
        (["-o", "x.npz", "--server", "http://a:1"], "it begins with http://, but is no web address"),
        (["-o", "x.npz", "--server", "a:99999"], "its port is 99999, not a number from 1 to 65535"),
        (["-o", "x.npz", "--server", ""], "it is empty"),
        (["-o", "x.npz", "--server", "a:1", "--token-file", "token"], "the token would go to a:1 in plaintext"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_before_the_first_try(tmp_path, options, says):
    (tmp_path / "folder.npz").mkdir()
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "token").write_text("bgan_alice_secret")
    before = sorted(tmp_path.iterdir())
    result = bgan("sample", *options, cwd=tmp_path)
    assert result.returncode == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert "secret" not in result.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_a_link_keeps_pointing_and_a_file_its_permissions(running, tmp_path):
    (tmp_path / "real.npy").write_text("old")
    (tmp_path / "real.npy").chmod(0o600)
    (tmp_path / "link.npy").symlink_to("real.npy")
    assert bgan("sample", "--server", running.target, "-n", 3, "-o", tmp_path / "link.npy").returncode == 0
    assert (tmp_path / "link.npy").is_symlink()
    assert len(np.load(tmp_path / "real.npy")) == 3
    assert (tmp_path / "real.npy").stat().st_mode & 0o777 == 0o600


def test_folders_that_cannot_be_served(models, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    text = tmp_path / "text"
    text.mkdir()
    (text / "x.onnx").write_text("no model")
    hollow = tmp_path / "hollow"
    hollow.mkdir()
    (hollow / "x.onnx").touch()
    bare = tmp_path / "bare"
    bare.mkdir()
    model = onnx.load(models / "digits.onnx")
    del model.metadata_props[:]
    onnx.save(model, bare / "x.onnx")
    for folder, says in (
        (tmp_path / "missing", "is not a folder"),
        (empty, "has no .onnx file"),
        (text, "x.onnx is no ONNX model"),
        (hollow, "x.onnx is no ONNX model"),
        (bare, "x.onnx has no manifest"),
    ):
        assert says in error_line(bgan_process("serve", "--models", folder, "--port", 0))
    line = error_line(bgan_process("serve", "--models", models, "--port", 0, "--default-model", "nope"))
    assert "the default model 'nope' is not there" in line


def test_ports_that_cannot_be_had(running, models):
    line = error_line(bgan_process("serve", "--models", models, "--port", running.port))
    assert f"cannot listen on 127.0.0.1:{running.port}" in line
    line = error_line(bgan("serve", "--models", models, env={"BGAN_PORT": "many"}))
    assert "port is 'many'" in line


def test_help_teaches():
    listed = bgan("--help")
    assert listed.returncode == 0
    for command in COMMANDS:
        assert command in listed.stdout
        help_text = bgan(command, "--help")
        assert help_text.returncode == 0
        assert "Example" in help_text.stdout
    assert bgan("--version").stdout.startswith("bgan ")
