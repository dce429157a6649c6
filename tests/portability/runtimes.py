"""The runtimes that models are run in, each in a folder of its own among the tools, made when it is first needed."""

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

VERSIONS = ("1.22.0", "1.24.4", "1.27.0", "1.29.0", "1.32.0")
"""Of onnxruntime, from the oldest that pyproject.toml allows to the one in constraints.txt."""
WEB_VERSION = "1.30.0"
OPENVINO_VERSION = "2026.4.1"
_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A way to run models."""

    title: str
    command: list[str]
    folder: Path
    """Where it is run; also where its packages are imported from."""
    package: str = "onnxruntime"
    optimized: bool = True
    is_slow: bool = False
    environment: dict[str, str] = field(default_factory=dict)


def native(tools):
    """onnxruntime on this CPU."""
    for number in reversed(VERSIONS):
        folder = _packages(tools, "onnxruntime", number)
        for optimized in (True, False):
            title = f"onnxruntime {number}{'' if optimized else ', optimizations off'}"
            yield Runtime(title=title, command=_PYTHON, folder=folder, optimized=optimized)


def numpy(tools):
    """The reference implementation of ONNX's operators."""
    title = f"numpy: onnx {version('onnx')}'s reference implementation"
    yield Runtime(title=title, command=_PYTHON, folder=_made(tools / "none"), package="onnx")


_PYTHON = [sys.executable, str(_HERE / "run_model.py")]
PARTS = {"native": native, "numpy": numpy}


def _packages(tools, package, number):
    folder = tools / f"{package}-{number}"
    return _made(folder, _pip(folder, f"{package}=={number}"))


def _pip(folder, *requirements):
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(folder)]
    return [sys.executable, "-m", "pip", "install", *options, *requirements]


def _made(folder, *commands):
    """The folder that these commands fill, each run in it; what failed is made anew."""
    if not (ready := folder / ".ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for command in commands:
            subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)
        ready.touch()
    return folder
