"""The wheel: it holds every module and the models that come with bgan, and works outside of the checkout."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import grpc
import numpy as np
import pytest

from bgan.serving.config.settings import SHIPPED
from bgan.serving.models.engine import load_engine
from tests.conftest import ROOT
from tests.kit.servers import ServerProcess

ROOMS = ("trainer", "serving", "clients")
_BUILD = "import setuptools.build_meta as backend, sys; getattr(backend, sys.argv[1])(sys.argv[2])"
_MAIN = "import sys; sys.path += [{!r}, {!r}]; from bgan.trainer.cli.app import main; main()"


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The wheel and the source distribution, from a copy: what an earlier build left would get into them."""
    folder = tmp_path_factory.mktemp("distributions")
    source = folder / "source"
    for room in (*ROOMS, "proto"):
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("node_modules"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
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
    process = ServerProcess(None, program=(*program, "serve"), cwd=tmp_path)
    try:
        assert str(site) in process.output()  # it serves the models that came with it
        options = ("sample", "--server", process.target, "--count", "50", "--seed", "3", "--output", "x.npz")
        subprocess.run([*program, *options], cwd=tmp_path, check=True, capture_output=True)
    finally:
        process.stop()
    with np.load(tmp_path / "x.npz") as file:
        assert (
            file["packed_images"].tobytes() == load_engine(SHIPPED / "cnn-dbn.onnx").sample(3, 0, 50).packed_images
        )
