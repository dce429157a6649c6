"""bgan generate as the README has it, and what `bgan evaluate` makes of its files."""

import re
import shlex

import numpy as np
import pytest

from bgan.trainer.evaluation.samples import load_samples
from tests.conftest import ROOT
from tests.fixtures.write import write_model
from tests.kit.cli import bgan


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
