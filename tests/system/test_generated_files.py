"""bgan generate as the README has it, and what `bgan evaluate` makes of its files."""

import re
import shlex

import numpy as np
import pytest
from PIL import Image

from bgan.trainer.evaluation.samples import load_samples
from tests.conftest import ROOT
from tests.fixtures.write import write_model
from tests.kit.cli import bgan
from tests.kit.servers import server


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    write_model(folder / "models", "digits", stochastic=True)
    return folder


def test_the_readmes_commands_run(tmp_path):
    (snippet,) = re.findall(r"```sh\n(bgan generate.*?)```", (ROOT / "README.md").read_text(), re.S)
    for line in snippet.splitlines():
        command = shlex.split(line, comments=True)
        count = command.index("--count") + 1
        command[count] = str(int(command[count]) // 1000)
        result = bgan(*command[1:], cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        "digits.npz",
        "digits.npy",
        "more.bits",
        "more.bits.json",
    }


def test_what_evaluate_reads_is_what_was_generated(folder, processes):
    for name in ("a.npz", "a.npy"):
        result = bgan("generate", "digits", "--count", 120, "--seed", 1, "-o", name, cwd=folder)
        assert result.returncode == 0, result.stderr
    packed, dense = (load_samples(folder / name, (1, 28, 28)) for name in ("a.npz", "a.npy"))
    assert packed.images.shape == (120, 1, 28, 28)
    assert (packed.images == dense.images).all()
    assert (dense.images == np.load(folder / "a.npy")).all()


def test_help_teaches():
    assert "generate" in bgan("--help").stdout
    result = bgan("generate", "--help")
    assert result.returncode == 0
    assert "Example" in result.stdout


def test_sample_and_generate_write_the_same_bytes_and_show_the_same_picture(tmp_path, processes):
    with server(None) as process:
        for suffix in ("npz", "npy", "bits", "bin", "png"):
            options = ("--count", 70, "--seed", 2, "--first-index", 5, "--label", 3, "--label", 4)
            at = ("--server", process.target, "--model", "mlp-dbn")
            for command in (("sample", *at, "-o", f"s.{suffix}"), ("generate", "mlp-dbn", "-o", f"g.{suffix}")):
                result = bgan(*command, *options, cwd=tmp_path)
                assert (result.returncode, result.stdout) == (0, f"{command[-1]}\n"), result.stderr
            if suffix == "png":
                pictures = [np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")) for name in "sg"]
                np.testing.assert_array_equal(*pictures)
            else:
                assert (tmp_path / f"s.{suffix}").read_bytes() == (tmp_path / f"g.{suffix}").read_bytes()
    assert (tmp_path / "s.bits.json").read_text() == (tmp_path / "g.bits.json").read_text()
