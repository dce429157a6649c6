"""The wheel: it holds every module and the models that come with bgan, and works outside of the checkout."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import urlopen

import grpc
import numpy as np
import pytest

from bgan.serving.config.settings import SHIPPED
from bgan.serving.models.engine import load_engine
from tests.conftest import ROOT
from tests.kit.servers import ServerProcess

ROOMS = ("trainer", "serving", "clients")
SHOWN = ("README.md", "LICENSE")
BESIDE = ("CHANGELOG.md", "CITATION.cff", "SECURITY.md", "constraints.txt")
"""Files that a source distribution has beside the code."""
_BUILD = "import setuptools.build_meta as backend, sys; getattr(backend, sys.argv[1])(sys.argv[2])"
_MAIN = "import sys; sys.path += [{!r}, {!r}]; from bgan.trainer.cli.app import main; main()"


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The wheel and the source distribution, from a copy: what an earlier build left would get into them."""
    folder = tmp_path_factory.mktemp("distributions")
    source = folder / "source"
    for room in (*ROOMS, "proto"):
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("node_modules"))
    for file in ("pyproject.toml", "MANIFEST.in", *SHOWN, *BESIDE):
        shutil.copy(ROOT / file, source)
    for build in ("build_wheel", "build_sdist"):
        command = [sys.executable, "-c", _BUILD, build, folder]
        subprocess.run(command, cwd=source, check=True, capture_output=True)
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def test_wheel_and_source_distribution_hold_all_modules_and_models(distributions):
    wheel, archive = distributions
    inside = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(archive) as file:
        inside_source = {path.partition("/")[2] for path in file.getnames()}
    modules = (path for room in ROOMS for path in (ROOT / room).rglob("*.py") if path.parent.name != "examples")
    expected = {path.relative_to(ROOT) for path in modules}
    expected |= {path.relative_to(ROOT) for path in SHIPPED.iterdir()}
    expected |= {path.relative_to(ROOT) for path in (ROOT / "clients" / "browser").glob("*.*")}
    assert not [path for path in inside if path.endswith(".wasm")]
    assert len([path for path in expected if path.suffix == ".onnx"]) == 4
    assert {f"bgan/{path}" for path in expected} | {"bgan/__main__.py"} <= inside
    assert {str(path) for path in expected} <= inside_source


def _get(address):
    with urlopen(address) as response:
        return response.read()


def test_the_source_distribution_builds_the_same_wheel(distributions, tmp_path):
    wheel, archive = distributions
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert {path.name for path in source.iterdir()} >= {*SHOWN, *BESIDE}
    command = [sys.executable, "-c", _BUILD, "build_wheel", tmp_path]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(wheel) as expected, zipfile.ZipFile(tmp_path / wheel.name) as built:
        assert set(built.namelist()) == set(expected.namelist())
        assert [name for name in built.namelist() if built.read(name) != expected.read(name)] == []


def test_the_version_is_the_same_everywhere(distributions):
    wheel, _ = distributions
    with zipfile.ZipFile(wheel) as file:
        metadata = next(name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        version = re.search(r"^Version: (.*)$", file.read(metadata).decode(), re.MULTILINE)[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_wheel_serves_and_samples_outside_of_the_checkout(distributions, tmp_path):
    wheel, _ = distributions
    site = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--target",
        site,
        wheel,
    ]
    subprocess.run(install, check=True, capture_output=True)
    # Neither site nor the environment has a say: the dependencies come from where they are, bgan from the wheel.
    packages = Path(grpc.__file__).parents[1]
    program = (sys.executable, "-I", "-S", "-c", _MAIN.format(str(site), str(packages)))
    shown = subprocess.run([*program, "--help"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "bgan" in shown
    assert "sample" in shown
    process = ServerProcess(None, "--http-port", "0", program=(*program, "serve"), cwd=tmp_path)
    try:
        assert str(site) in process.output()  # it serves the models that came with it
        page = _get(process.http).decode()
        linked = re.findall(r"""(?:src|href)="([^"#:]+\.(?:js|css|svg))\"""", page)
        assert len(linked) > 2
        for name in linked:
            assert _get(urljoin(process.http, name)) == (ROOT / "clients" / "browser" / name).read_bytes()
        options = ("sample", "--server", process.target, "--count", "50", "--seed", "3", "--output", "x.npz")
        subprocess.run([*program, *options], cwd=tmp_path, check=True, capture_output=True)
    finally:
        process.stop()
    with np.load(tmp_path / "x.npz") as file:
        assert (
            file["packed_images"].tobytes() == load_engine(SHIPPED / "cnn-dbn.onnx").sample(3, 0, 50).packed_images
        )
