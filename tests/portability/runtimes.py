"""The runtimes that models are run in, each in a folder of its own among the tools, made when first needed."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

VERSIONS = ("1.24.4", "1.27.0", "1.29.0", "1.32.0")
"""Of onnxruntime, from the oldest that pyproject.toml allows to the one in constraints.txt."""
WEB_VERSION = "1.30.0"
OPENVINO_VERSION = "2026.4.1"
_HERE = Path(__file__).parent
PYTHON = [sys.executable, str(_HERE / "run_model.py")]
_ARM = {"cortex-a57": "0xd07", "neoverse-n1": "0xd0c", "max": "0xd40"}
"""QEMU's names, and the number of the part: without dot products of integers, with them, and with all there is."""
_ARM_CPU = "processor: {}\nCPU implementer: 0x41\nCPU architecture: 8\nCPU variant: 0x1\nCPU part: {}\n"
_UNPACK = "for each in *.deb; do dpkg -x $each . && rm $each || exit; done"


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A way to run models."""

    title: str
    command: list[str]
    folder: Path
    """Where it is run; also where its packages are imported from."""
    package: str = "onnxruntime"
    settings: dict[str, str] = field(default_factory=dict)
    is_slow: bool = False
    environment: dict[str, str] = field(default_factory=dict)


def native(tools):
    """onnxruntime on this CPU."""
    for number in reversed(VERSIONS):
        folder = _packages(tools, "onnxruntime", number)
        yield Runtime(title=f"onnxruntime {number}", command=PYTHON, folder=folder)
        settings = {"optimizations": "ORT_DISABLE_ALL"}
        title = f"onnxruntime {number}, graph optimizations off"
        yield Runtime(title=title, command=PYTHON, folder=folder, settings=settings)


def numpy(tools):
    """The reference implementation of ONNX's operators."""
    title = f"numpy: onnx {version('onnx')}'s reference implementation"
    yield Runtime(title=title, command=PYTHON, folder=_made(tools / "none"), package="onnx", is_slow=True)


def openvino(tools):
    """A runtime that is not onnxruntime."""
    folder = _packages(tools, "openvino", OPENVINO_VERSION)
    title = f"OpenVINO {OPENVINO_VERSION}"
    for end, settings in ((", precision f32", {"INFERENCE_PRECISION_HINT": "f32"}), (", default precision", {})):
        yield Runtime(title=title + end, command=PYTHON, folder=folder, package="openvino", settings=settings)


def web(tools):
    """What browsers run: WebAssembly."""
    install = f"npm install --silent --no-audit --no-fund --prefix . onnxruntime-web@{WEB_VERSION}"
    folder = _made(tools / f"web-{WEB_VERSION}", ["sh", "-c", install])
    title = f"onnxruntime-web {WEB_VERSION}, WebAssembly in Node.js"
    yield Runtime(title=title, command=["node", str(_HERE / "run_model.mjs")], folder=folder, package="")


def emulated(tools):
    """Other kinds of x86-64, emulated."""
    qemu = _unpacked(tools / "qemu", "qemu-user-static") / "usr/bin/qemu-x86_64-static"
    kinds = {"Nehalem": "no AVX", "SandyBridge": "AVX", "Haswell": "AVX2 and FMA"}
    for number, kind in _combined(kinds, "Haswell"):
        folder = _packages(tools, "onnxruntime", number)
        title = f"onnxruntime {number}, x86-64 with {kinds[kind]} (QEMU's {kind})"
        yield Runtime(title=title, command=[str(qemu), "-cpu", kind, *PYTHON], folder=folder, is_slow=True)


def aarch64(tools):
    """64-bit Arm, emulated: Debian's Python for it, with wheels for it."""
    qemu = _unpacked(tools / "qemu", "qemu-user-static") / "usr/bin/qemu-aarch64-static"
    root = _foreign_debian(tools / "aarch64", "arm64", "python3", "libstdc++6")
    python = next(path for path in (root / "usr/bin").glob("python3.*") if path.name[8:].isdigit())
    for number, kind in _combined(_ARM, "neoverse-n1"):
        folder = tools / f"aarch64-onnxruntime-{number}"
        wheels = ["--platform", "manylinux_2_27_aarch64", "--platform", "manylinux_2_28_aarch64"]
        wheels += ["--python-version", python.name[6:]]
        _made(folder, [*_pip(folder, f"onnxruntime=={number}", f"numpy=={version('numpy')}"), *wheels])
        # Files of the root go before this system's, whose CPU is another: onnxruntime looks up what it has.
        cpus = [_ARM_CPU.format(each, _ARM[kind]) for each in range(os.cpu_count())]
        (root / "proc").mkdir(exist_ok=True)
        (root / "proc/cpuinfo").write_text("\n".join(cpus))
        yield Runtime(
            title=f"onnxruntime {number}, aarch64 (QEMU's {kind})",
            command=[str(qemu), "-cpu", kind, "-L", str(root), str(python), str(_HERE / "run_model.py")],
            folder=folder,
            is_slow=True,
            environment={"PYTHONHOME": str(root / "usr")},
        )


def _combined(kinds, usual):
    """The newest onnxruntime on all kinds of CPU, and the oldest on the usual one."""
    return [*((VERSIONS[-1], kind) for kind in kinds), (VERSIONS[0], usual)]


PARTS = {part.__name__: part for part in (native, numpy, openvino, web, emulated, aarch64)}


def _foreign_debian(folder, architecture, *packages):
    """Packages of another architecture, with all that they need, unpacked beside what this system knows."""
    options = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "1",
        "Dir::Cache": folder,
        "Dir::State::Lists": folder / "lists",
        "Dir::State::status": folder / "status",
    }
    apt = ["apt-get", "--quiet", *(f"--option={name}={value}" for name, value in options.items())]
    download = [*apt, "install", "--download-only", "--yes", "--no-install-recommends", *packages]
    begin = ["sh", "-c", "mkdir -p lists/partial archives/partial && touch status"]
    return _made(folder, begin, [*apt, "update"], download, ["sh", "-c", f"mv archives/*.deb . && {_UNPACK}"])


def _unpacked(folder, *packages):
    """Debian packages, unpacked and not installed."""
    return _made(folder, ["apt-get", "download", "--quiet", *packages], ["sh", "-c", _UNPACK])


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
