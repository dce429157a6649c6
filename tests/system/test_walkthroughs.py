"""The walkthroughs of docs/: every block of each page, in order, in an empty folder; only sizes are smaller."""

import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.kit.cli import bgan
from tests.kit.servers import server

PAGES = ROOT / "docs" / "walkthroughs"
DEFAULT = "localhost:50051"
SIZE = 16  # of the lattices


def _python(*arguments, cwd, env):
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False)


PROGRAMS = {"bgan": bgan, "python": _python}


class Walk:
    """A page, followed; `printed` has what each line of its shell blocks printed."""

    def __init__(self, folder, environment, servers):
        self.folder = folder
        self.printed = {}
        self._environment = environment.copy()
        self._servers = servers
        self._target = None

    def save(self, block):
        """A Python block is the file that its first line names."""
        name = re.match(r"# (\w+\.py)\n", block)[1]
        if DEFAULT in block:
            block = block.replace(DEFAULT, self._target)
        (self.folder / name).write_text(block)

    def run(self, line):
        program, *arguments = shlex.split(line, comments=True)
        if (program, *arguments[:1]) == ("bgan", "serve"):
            process = self._servers.enter_context(server(None, *arguments[1:], cwd=self.folder))
            self._target = process.target
            self._environment["BGAN_SERVER"] = process.target
            return
        result = PROGRAMS[program](*arguments, cwd=self.folder, env=self._environment)
        assert result.returncode == 0, f"{line}\n{result.stderr}"
        self.printed[line] = result.stdout


def _follow(name, folder, environment, smaller):
    """Follow a page to its end. `smaller`: what makes it long, and what is said in its place."""
    text = (PAGES / name).read_text()
    for said, instead in smaller.items():
        assert text.count(said) == 1, f"{name} says {said!r} {text.count(said)} times"
        text = text.replace(said, instead)
    with ExitStack() as servers:
        walk = Walk(folder, environment, servers)
        for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.S | re.M):
            if language == "python":
                walk.save(block)
                continue
            assert language == "sh"
            for line in block.splitlines():
                walk.run(line)
    return walk


def _titled(lines):
    """Lines of a title, a colon and figures, as the figures by title."""
    parts = [line.rsplit(": ", 1) for line in lines]
    return {title: [float(number) for number in re.findall(r"[-+]?\d+\.\d+", rest)] for title, rest in parts}


def _is_picture(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_masks(tmp_path, cache_environment):
    smaller = {
        "IMAGES = 400": "IMAGES = 40",
        "--epochs 100 ": "--epochs 1 ",
        "image_count=1_000": "image_count=50",
    }
    walk = _follow("masks.md", tmp_path, cache_environment, smaller)
    assert _is_picture(tmp_path / "masks.png")
    assert _is_picture(tmp_path / "samples.png")
    figures = _titled(walk.printed["python check.py"].splitlines())
    for cells, name in enumerate(("1-cell", "2-cells", "3-cells"), start=1):
        right, specks, area, _ = figures[f"{name}, data"]
        assert (right, specks) == (1, 0)
        assert 55 * cells < area < 85 * cells
        right, specks, *_ = figures[f"{name}, samples"]
        assert 0 <= right <= 1 >= specks >= 0


def test_pianoroll(tmp_path, cache_environment):
    smaller = {"BARS = 4_000": "BARS = 100", "--epochs 10 ": "--epochs 1 ", "image_count=1_000": "image_count=50"}
    walk = _follow("pianoroll.md", tmp_path, cache_environment, smaller)
    assert _is_picture(tmp_path / "rolls.png")
    assert _is_picture(tmp_path / "samples.png")
    figures = dict(line.split(": ", 1) for line in walk.printed["python check.py"].splitlines())
    data = {name: float(re.match(r"data (\d+\.\d+)", text)[1]) for name, text in figures.items()}
    assert data["notes a bar, chords"] == 6
    assert data["notes a bar, bass"] == 4
    assert data["notes a bar, melody"] == pytest.approx(8 * 0.75 * 0.9, rel=0.15)
    assert data["notes a bar, drums"] == pytest.approx(12 * 0.9, rel=0.15)
    assert data["bars without chords"] == data["bars without bass"] == 0
    assert data["bars without drums"] == pytest.approx(0.1, abs=0.07)
    assert data["pitched notes in the scale"] == data["bass in the chord"] == 1
    assert data["pitches at once, chords"] == 3
    assert all(re.fullmatch(r"data \d+\.\d{3}, samples (\d+\.\d{3}|nan)", text) for text in figures.values())


def _exact_energy(temperature):
    """The energy per spin of the Ising model on the torus (Kaufman 1949), by a difference of log Z."""
    step = 1e-5
    beta = 1 / temperature
    return -(_log_partition(beta + step) - _log_partition(beta - step)) / (2 * step * SIZE**2)


def _log_partition(beta):
    """The logarithm of the sum over all states, up to a constant: four products over momenta."""
    momenta = np.pi * np.arange(2 * SIZE) / SIZE
    cosh = np.cosh(2 * beta) / np.tanh(2 * beta) - np.cos(momenta)
    gammas = np.arccosh(cosh)
    gammas[0] = 2 * beta + np.log(np.tanh(beta))  # of either sign: negative above the critical temperature
    odd, even = gammas[1::2] * SIZE / 2, gammas[::2] * SIZE / 2
    terms = [np.prod(2 * function(part)) for part in (odd, even) for function in (np.cosh, np.sinh)]
    return SIZE**2 / 2 * np.log(2 * np.sinh(2 * beta)) + np.log(sum(terms))


def test_ising(tmp_path, cache_environment):
    smaller = {
        "LATTICES = 4_000": "LATTICES = 200",
        "sample(20_000, 4,": "sample(2_000, 4,",
        "--epochs 30": "--epochs 1",
        "image_count=4_000": "image_count=50",
    }
    walk = _follow("ising.md", tmp_path, cache_environment, smaller)
    assert _is_picture(tmp_path / "lattices.png")
    assert _is_picture(tmp_path / "samples.png")

    _, *lines = walk.printed["python ising.py"].splitlines()
    assert len(lines) == 6
    for truth, mean, error in _titled(lines).values():
        assert abs(mean - truth) < 4 * error

    # What neighbours share is the energy, of the stream's lattices as of the Monte Carlo's.
    figures = _titled(walk.printed["python check.py ising"].splitlines())
    for temperature in (2.0, 2.269, 3.0):
        energy, error, sampled, _ = figures[f"T = {temperature} energy"]
        neighbours, _, sampled_neighbours, _ = figures[f"T = {temperature} G(1)"]
        assert abs(energy - _exact_energy(temperature)) < 4 * error
        assert energy == pytest.approx(-2 * neighbours, abs=3e-4)
        assert sampled == pytest.approx(-2 * sampled_neighbours, abs=3e-4)
    assert walk.printed["python check.py ising-threshold"] != walk.printed["python check.py ising"]
