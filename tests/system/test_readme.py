"""The README's snippets, run as they stand there but for the server's port."""

import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.fixtures.write import write_model
from tests.kit.cli import BGAN, bgan
from tests.kit.models import make_run
from tests.kit.servers import server

README = (ROOT / "README.md").read_text()
DEFAULT = "localhost:50051"
COMMANDS = ("card", "train", "export", "serve", "sample", "evaluate", "explore", "reproduce", "generate")


def _snippets(language):
    found = re.findall(rf"```{language}\n(.*?)```", README, re.S)
    assert found
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, "digits")
    return folder


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    with server(None, cwd=tmp_path_factory.mktemp("empty")) as process:
        yield process.target


@pytest.mark.parametrize("snippet", _snippets("python"))
def test_python_snippets_run(snippet, target):
    assert DEFAULT in snippet
    code = snippet.replace(DEFAULT, target)
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def _commands(index):
    """The commands of a shell snippet."""
    return [shlex.split(line, comments=True) for line in _snippets("sh")[index].splitlines()]


@pytest.mark.usefixtures("training")  # of the classifier
def test_shell_snippets_of_measuring_run(tmp_path, cache_environment):
    newest, several = _commands(2)
    make_run(tmp_path / "runs" / "c")
    write_model(tmp_path / "models", "b", stochastic=True)
    np.savez(tmp_path / "a.npz", images=np.random.default_rng(0).random((100, 28, 28)) < 0.2)
    several[several.index("mnist")] = "digits"
    for command in (newest, several):
        result = bgan(*command[1:], "--count", "64", cwd=tmp_path, env=cache_environment)
        assert result.returncode == 0, result.stderr
        assert "Frechet distance" in result.stdout


@pytest.mark.long
def test_shell_snippets_of_reproducing_run(tmp_path, cache_environment, processes, training):
    # One model pair and one epoch of each stand in for all of it.
    less = shlex.split("--dataset digits --experiment I --preset paper --epochs 1 --count 64 --jobs 2")
    for command in _commands(3):
        result = bgan(*command[1:], *less, cwd=tmp_path, env=cache_environment)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "reproduction-quick" / "report.html").is_file()
    assert (tmp_path / "reproduction" / "report.md").is_file()


def test_shell_snippets_of_looking_run(models, tmp_path):
    (snippet,) = [snippet for snippet in _snippets("sh") if "bgan explore" in snippet]
    make_run(tmp_path / "runs" / "one")
    (tmp_path / "models").symlink_to(models)
    pages = ("runs/one/exploration/exploration.html", "exploration/digits/exploration.html")
    for line, page in zip(snippet.splitlines(), pages, strict=True):
        result = bgan(*shlex.split(line, comments=True)[1:], cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert (tmp_path / page).is_file()


def test_shell_snippets_of_sampling_run(target, tmp_path):
    serve, sample = _commands(0)
    assert serve == ["make", "serve"]
    assert sample[0] == ".venv/bin/bgan"
    result = bgan(*sample[1:], cwd=tmp_path, env={"BGAN_SERVER": target})
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("exporting")
def test_shell_snippets_of_training_run(tmp_path):
    commands = _commands(1)
    assert [command[:2] for command in commands] == [
        ["bgan", "train"],
        ["bgan", "export"],
        ["bgan", "serve"],
        ["bgan", "sample"],
    ]
    train, export, serve, sample = commands
    # One epoch of the digits stands in for twenty of MNIST.
    result = bgan(*train[1:], "--dataset", "digits", "--epochs", "1", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    result = bgan(*export[1:], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    with server(None, *serve[2:], cwd=tmp_path) as process:
        result = bgan(*sample[1:], cwd=tmp_path, env={"BGAN_SERVER": process.target})
    assert result.returncode == 0, result.stderr
    assert "64 images of modern-digits-doubling-cnn-dbn-relativistic-conditional-seed0" in result.stderr


def test_make_serve_is_what_the_readme_says():
    for options, command in (
        ((), "bgan serve --port 50051"),
        (("MODELS=mine", "PORT=1"), "bgan serve --port 1 --models mine"),
    ):
        result = subprocess.run(
            ["make", "--no-print-directory", "--dry-run", "serve", *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stdout.strip().endswith(command)


def test_what_the_readme_links_to_is_there():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert "docs/samples/shipped.png" in links
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_every_option_the_readme_names_exists():
    helps = "".join(bgan(command, "--help").stdout for command in COMMANDS)
    for option in set(re.findall(r"`(--[a-z-]+)`", README)):
        assert option in helps, option
    assert BGAN.exists()
